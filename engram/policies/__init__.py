"""Policies: the only place that composes backbones, memories and experts. One file per order of operations."""
