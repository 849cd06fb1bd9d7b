"""What stage 1 begins with: a tiny world model for a CPU, or a published one."""

from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from engram.world.latents import Patches, Vae
from engram.world.model import ADDED, Outlook, World
from engram.world.published import (
    AutoencoderKLTemporalDecoder,
    UNetSpatioTemporalConditionModel,
    found,
    read,
    settings,
)
from engram.world.text import Words, clip

TINY_SIGMA, PUBLISHED_SIGMA = 20.0, 700.0  # the tiny one sees little noise of more than that in its short training
ATTENDS, PLAIN = "CrossAttn{}BlockSpatioTemporal", "{}BlockSpatioTemporal"


def tiny(
    outlook: Outlook, images_NXY3: UInt8[Tensor, "N X Y 3"], factor: int = 8, channels: int = 16, seed: int = 0
) -> World:
    """A model with random weights that trains in minutes on a CPU, its latents fitted on pictures like those given.

    Three resolutions, attention at the coarsest alone. The seed decides the weights; the state of torch's generator
    stays as it is.
    """
    width = 64
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNetSpatioTemporalConditionModel(
            in_channels=2 * channels,
            out_channels=channels,
            block_out_channels=(width, width, width),
            down_block_types=(*2 * (PLAIN.format("Down"),), ATTENDS.format("Down")),
            up_block_types=(ATTENDS.format("Up"), *2 * (PLAIN.format("Up"),)),
            layers_per_block=1,
            num_attention_heads=4,
            cross_attention_dim=width,
            addition_time_embed_dim=32,
            projection_class_embeddings_input_dim=32 * len(ADDED),
            num_frames=outlook.frames,
        )
        return World(unet, Patches.fit(images_NXY3, factor, channels), Words(width), outlook, TINY_SIGMA)


def published(
    name: Path | str, outlook: Outlook, text: Path | str | None = None, zoom: int = 1, seed: int = 0
) -> World:
    """Stable Video Diffusion, or a model of its kind: a folder in diffusers' layout or a repository of the Hub.

    text  folder of a CLIP text encoder with its tokenizer; None: words learned from scratch, the seed decides them
    zoom  how many times larger pictures are shown to the autoencoder than they are
    """
    folder = found(name)
    unet = read(UNetSpatioTemporalConditionModel, folder, "unet")
    codec, width = Vae(read(AutoencoderKLTemporalDecoder, folder, "vae"), zoom), settings(unet)["cross_attention_dim"]
    if text is not None:
        return World(unet, codec, clip(text, width), outlook, PUBLISHED_SIGMA)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return World(unet, codec, Words(width), outlook, PUBLISHED_SIGMA)
