"""A video world model: from the present picture and the instruction to the next ones, by denoising latents.

diffusers' spatio-temporal UNet under Stable Video Diffusion's preconditioning (arXiv 2311.15127, after EDM, arXiv
2206.00364): the noisy future and, on every frame of it, the present go in side by side; the instruction takes the
place of the image embedding in cross-attention (Video Prediction Policy, arXiv 2412.14803).

A policy does not look at pictures of the future but at what the UNet makes of pure noise in the first step or steps:
the outputs of some of its up blocks. What comes after the last of them is never computed.

Legend: B rows, K frames of the future, C channels of a latent, H W its cells, S text tokens, D their width, N steps.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from engram.draws import mix, normal, uniform
from engram.world.latents import Codec
from engram.world.published import UNetSpatioTemporalConditionModel, settings
from engram.world.text import Text

STEPS = 20  # of a whole sampling
SIGMA_MIN, RHO = 0.002, 7.0
NOISE = (0.7, 1.6)  # mean and deviation of log sigma in training
DROPPED = 0.05  # share of rows that learn without text
ADDED = (7.0, 127.0, 0.0)  # frames a second, motion bucket, noise on the present: published models ask, always the same


@dataclass(frozen=True)
class Outlook:
    """What is looked at, how far, and what is read off.

    camera         name of the one that is foreseen
    height, width  its pixels
    frames         K, how many frames of the future
    stride         ticks from one to the next
    blocks         up blocks of the UNet whose outputs are the features, from the coarsest

    ValueError for a value that makes no sense.
    """

    camera: str = "base"
    height: int = 64
    width: int = 64
    frames: int = 8
    stride: int = 1
    blocks: tuple[int, ...] = (0, 1)

    def __post_init__(self):
        for name in ("height", "width", "frames", "stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}; raise it")
        if not self.blocks or list(self.blocks) != sorted(set(self.blocks)) or self.blocks[0] < 0:
            raise ValueError(f"blocks: expected numbers of up blocks from the coarsest, found {self.blocks}; as (0, 1)")


class Scales(NamedTuple):
    """What a noisy latent, the network's output and its input are multiplied by, and how the noise is named to it."""

    skip: Tensor
    out: Tensor
    into: Tensor
    name: Tensor


class World(nn.Module):
    """The UNet with the codec of its latents and the encoder of its text.

    sigma_max  how noisy "pure noise" is where denoising starts: 700 for published weights

    Frozen with `learn(False)`. ValueError for parts that do not fit one another.
    """

    added: Tensor
    sigma: Tensor

    def __init__(
        self, unet: UNetSpatioTemporalConditionModel, codec: Codec, text: Text, outlook: Outlook, sigma_max: float
    ):
        super().__init__()
        _require_fit(unet, codec, text, outlook)
        self.unet, self.codec, self.text, self.outlook, self.sigma_max = unet, codec, text, outlook, sigma_max
        self.shape = (outlook.frames, codec.channels, *codec.cells(outlook.height, outlook.width))
        self.register_buffer("added", torch.tensor([ADDED]), persistent=False)
        self.register_buffer("sigma", schedule(sigma_max), persistent=False)

    def extra_repr(self) -> str:
        """What the tensors of a world model do not show."""
        return f"{self.outlook}, sigma_max={self.sigma_max}"

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each of the maps that `features` gives."""
        widths = settings(self.unet)["block_out_channels"]
        return tuple(widths[-1 - block] for block in self.outlook.blocks)

    def learn(self, on: bool) -> "World":
        """Let the weights learn, or freeze them. Codec and published text encoder are frozen either way."""
        self.unet.requires_grad_(on)
        self.text.requires_grad_(on and self.text.learns)
        return self

    def see(self, images_BXY3: UInt8[Tensor, "B X Y 3"]) -> Float[Tensor, "B C H W"]:
        """The present, as the other methods take it. ValueError for a picture of another size."""
        expected, found = (self.outlook.height, self.outlook.width), tuple(images_BXY3.shape[1:3])
        if found != expected:
            do = "use the camera that the world model was trained on"
            raise ValueError(f"pictures: expected {expected} pixels, found {found}; {do}")
        return self.codec.encode(images_BXY3.unsqueeze(1)).squeeze(1)

    def loss(
        self,
        latents_BKCHW: Float[Tensor, "B K C H W"],
        now_BCHW: Float[Tensor, "B C H W"],
        text: Sequence[str],
        key_B: Int64[Tensor, "B"],
    ) -> Tensor:
        """EDM's: squared error of the denoised future by (sigma^2 + 1) / sigma^2. All chance comes from `key`."""
        mean, deviation = NOISE
        sigma_B = (mean + deviation * normal(mix(key_B, 0))).exp()
        told_BSD = self.tell(text) * (uniform(mix(key_B, 1)) >= DROPPED)[:, None, None]
        noisy_BKCHW = latents_BKCHW + _wide(sigma_B) * normal(mix(key_B, 2), *self.shape)
        error_BKCHW = self.denoise(noisy_BKCHW, sigma_B, now_BCHW, told_BSD) - latents_BKCHW
        return (_wide(1 + sigma_B**-2) * error_BKCHW.square()).mean()

    def features(
        self, now_BCHW: Float[Tensor, "B C H W"], text: Sequence[str], key_B: Int64[Tensor, "B"], steps: int = 1
    ) -> list[Float[Tensor, "B K _ _ _"]]:
        """Outputs of the named up blocks in the last of the first `steps` steps from pure noise, from the coarsest.

        ValueError unless steps is 1 to STEPS.
        """
        if not 1 <= steps <= STEPS:
            raise ValueError(f"steps: expected 1 to {STEPS}, found {steps}; the paper has 1")
        told_BSD = self.tell(text)
        noisy_BKCHW = self._part_way(now_BCHW, told_BSD, key_B, steps - 1)
        with _until([self.unet.up_blocks[block] for block in self.outlook.blocks]) as maps:
            self._network(noisy_BKCHW, self.sigma[steps - 1].expand(len(key_B)), now_BCHW, told_BSD)
        return [out.unflatten(0, (len(key_B), -1)) for out in maps]

    @torch.no_grad()
    def sample(
        self, now_BCHW: Float[Tensor, "B C H W"], text: Sequence[str], key_B: Int64[Tensor, "B"]
    ) -> Float[Tensor, "B K C H W"]:
        """A future, denoised to the end: to look at and to measure; no policy needs it."""
        return self._part_way(now_BCHW, self.tell(text), key_B, STEPS)

    @torch.no_grad()
    def expect(
        self, now_BCHW: Float[Tensor, "B C H W"], text: Sequence[str], key_B: Int64[Tensor, "B"]
    ) -> Float[Tensor, "B K C H W"]:
        """The future as it looks from pure noise: about the mean of all that may come, what `features` is part of."""
        noise_BKCHW = self.sigma[0] * normal(key_B, *self.shape)
        return self.denoise(noise_BKCHW, self.sigma[0].expand(len(key_B)), now_BCHW, self.tell(text))

    def tell(self, text: Sequence[str]) -> Float[Tensor, "B S D"]:
        """Tokens of each row's instruction; each distinct one is computed once."""
        distinct = sorted(set(text))
        row = {words: i for i, words in enumerate(distinct)}
        return self.text(distinct)[[row[words] for words in text]]

    def denoise(
        self,
        noisy_BKCHW: Float[Tensor, "B K C H W"],
        sigma_B: Float[Tensor, "B"],
        now_BCHW: Float[Tensor, "B C H W"],
        told_BSD: Float[Tensor, "B S D"],
    ) -> Float[Tensor, "B K C H W"]:
        """The clean future, as the network sees it in one with noise of deviation `sigma`."""
        scales = preconditioning(_wide(sigma_B))
        return scales.skip * noisy_BKCHW + scales.out * self._network(noisy_BKCHW, sigma_B, now_BCHW, told_BSD)

    def _part_way(self, now_BCHW: Tensor, told_BSD: Tensor, key_B: Tensor, steps: int) -> Tensor:
        """Pure noise after so many steps of Euler's."""
        x_BKCHW = self.sigma[0] * normal(key_B, *self.shape)
        for sigma, next_sigma in self.sigma.unfold(0, 2, 1)[:steps]:
            clean_BKCHW = self.denoise(x_BKCHW, sigma.expand(len(key_B)), now_BCHW, told_BSD)
            x_BKCHW = torch.lerp(clean_BKCHW, x_BKCHW, next_sigma / sigma)
        return x_BKCHW

    def _network(self, noisy_BKCHW: Tensor, sigma_B: Tensor, now_BCHW: Tensor, told_BSD: Tensor) -> Tensor:
        scales = preconditioning(_wide(sigma_B))
        now_BKCHW = (now_BCHW / self.codec.scale).unsqueeze(1).expand_as(noisy_BKCHW)
        both_BKCHW = torch.cat([scales.into * noisy_BKCHW, now_BKCHW], 2)
        added_B3 = self.added.expand(len(noisy_BKCHW), -1)
        return self.unet(both_BKCHW, scales.name.flatten(), told_BSD, added_B3, return_dict=False)[0]


def preconditioning(sigma: Float[Tensor, "*lead"]) -> Scales:
    """Stable Video Diffusion's, for data of unit scale."""
    size = (sigma**2 + 1).sqrt()
    return Scales(size**-2, -sigma / size, 1 / size, 0.25 * sigma.log())


def schedule(sigma_max: float, steps: int = STEPS) -> Float[Tensor, "N"]:
    """Noise before each step (Karras et al. 2022), and 0 after the last. ValueError unless sigma_max is above 0.002."""
    if not sigma_max > SIGMA_MIN:
        raise ValueError(f"sigma_max: expected more than {SIGMA_MIN}, found {sigma_max}; published models have 700")
    at_N = torch.linspace(0, 1, steps, dtype=torch.float64)
    most, least = sigma_max ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    return torch.cat([(most + at_N * (least - most)) ** RHO, torch.zeros(1, dtype=torch.float64)]).float()


class _EnoughError(Exception):
    """All that was asked for is there: ends a network's forward pass, and goes no further."""


@contextmanager
def _until(blocks: list[nn.Module]) -> Iterator[list[Tensor]]:
    """Collects what the blocks give, and leaves the body when the last of them has."""
    heard: list[Tensor] = []

    def hear(_, __, out: Tensor) -> None:
        heard.append(out)
        if len(heard) == len(blocks):
            raise _EnoughError

    hooks = [block.register_forward_hook(hear) for block in blocks]
    try:
        yield heard
    except _EnoughError:
        pass
    finally:
        for hook in hooks:
            hook.remove()


def _wide(sigma_B: Tensor) -> Tensor:
    return sigma_B[:, None, None, None, None]


def _require_fit(unet: UNetSpatioTemporalConditionModel, codec: Codec, text: Text, outlook: Outlook) -> None:
    """ValueError naming the first in which the parts do not fit."""
    made, c = settings(unet), codec.channels
    facts = (
        ("channels in", 2 * c, made["in_channels"]),
        ("channels out", c, made["out_channels"]),
        ("width of cross-attention", text.width, made["cross_attention_dim"]),
        ("added numbers", len(ADDED), made["projection_class_embeddings_input_dim"] // made["addition_time_embed_dim"]),
    )
    for name, expected, found in facts:
        if expected != found:
            do = "use a codec and a text encoder that belong to it"
            raise ValueError(f"unet: expected {name}: {expected}, found {found}; {do}")
    if outlook.blocks[-1] >= len(unet.up_blocks):
        most = len(unet.up_blocks) - 1
        raise ValueError(f"blocks: expected up blocks 0 to {most}, found {outlook.blocks}; name some of these")
