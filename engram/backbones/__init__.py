"""Backbones: images, proprioception and an instruction to tokens, keys and values."""
