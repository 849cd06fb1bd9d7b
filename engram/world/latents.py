"""Pictures as latents of about unit scale, and back: what a video world model computes with.

patches  a linear map fitted on a data set, for the tiny model: each square of pixels, less the mean picture, on its
         principal components. Made for a camera that stands still.
vae      the autoencoder of a published model, in diffusers' layout; frozen

Legend: B rows, T pictures of a row, R = B T, N pictures, X Y pixels of a picture's sides, C channels of a latent,
H W its cells, P = 3 f f numbers of a square of f x f pixels.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from engram.world.published import AutoencoderKLTemporalDecoder, settings

FINEST = 1 / 128  # what a pixel's own steps are worth on [-1, 1]: no component is blown up beyond that
STRIP = 64  # pictures at a time while fitting


class Patches(nn.Module):
    """Latents of `channels` principal components of squares of `factor` x `factor` pixels, each of unit deviation.

    For pictures of height x width pixels. ValueError for more components than a square has numbers, or squares that
    do not tile a picture.
    """

    mean: Tensor
    basis: Tensor
    spread: Tensor
    scale = 1.0  # a latent over what a network is told of the present: see Vae

    def __init__(self, height: int, width: int, factor: int = 8, channels: int = 16):
        super().__init__()
        if not 1 <= channels <= 3 * factor**2:
            most = 3 * factor**2
            raise ValueError(f"channels: expected 1 to {most} for squares of {factor} pixels, found {channels}")
        self.height, self.width, self.factor, self.channels = height, width, factor, channels
        rows, columns = cells(height, width, factor)
        self.register_buffer("mean", torch.zeros(3 * factor**2, rows, columns))
        self.register_buffer("basis", torch.zeros(3 * factor**2, channels))
        self.register_buffer("spread", torch.ones(channels))

    @classmethod
    def fit(cls, images_NXY3: UInt8[Tensor, "N X Y 3"], factor: int = 8, channels: int = 16) -> "Patches":
        """The map for pictures like these; the same for the same pictures."""
        codec = cls(images_NXY3.shape[1], images_NXY3.shape[2], factor, channels)
        strips = images_NXY3.split(STRIP)
        mean_PHW = torch.stack([_squares(strip, factor).sum(0) for strip in strips]).sum(0) / len(images_NXY3)
        spread_PP = torch.zeros(2 * [len(mean_PHW)], dtype=torch.float64)
        for strip in strips:
            apart_PR = (_squares(strip, factor) - mean_PHW).transpose(0, 1).flatten(1)
            spread_PP += apart_PR @ apart_PR.T
        power_P, basis_PP = torch.linalg.eigh(spread_PP / (len(images_NXY3) * mean_PHW[0].numel()))
        basis_PC = basis_PP.flip(1)[:, :channels]
        sign_C = basis_PC.gather(0, basis_PC.abs().argmax(0, keepdim=True)).sign()  # as eigh leaves it open
        codec.mean.copy_(mean_PHW)
        codec.basis.copy_(basis_PC * sign_C)
        codec.spread.copy_(power_P.flip(0)[:channels].clamp(min=FINEST**2).sqrt())
        return codec

    def about(self) -> dict:
        """What it takes to make one of this shape."""
        return {"height": self.height, "width": self.width, "factor": self.factor, "channels": self.channels}

    def cells(self, height: int, width: int) -> tuple[int, int]:
        """Cells (H, W) of a picture. ValueError for one of another size than this was fitted on."""
        if (height, width) != (self.height, self.width):
            expected, found = f"{self.height} x {self.width} pixels", f"{height} x {width}"
            raise ValueError(f"pictures: expected {expected}, found {found}; use the camera that this was fitted on")
        return cells(height, width, self.factor)

    def encode(self, images_BTXY3: UInt8[Tensor, "B T X Y 3"]) -> Float[Tensor, "B T C H W"]:
        """Latents of pictures."""
        self.cells(*images_BTXY3.shape[2:4])
        apart_RPHW = _squares(images_BTXY3.flatten(0, 1), self.factor).float() - self.mean
        latent_RCHW = torch.einsum("rphw,pc->rchw", apart_RPHW, self.basis / self.spread)
        return latent_RCHW.unflatten(0, images_BTXY3.shape[:2])

    def decode(self, latents_BTCHW: Float[Tensor, "B T C H W"]) -> UInt8[Tensor, "B T X Y 3"]:
        """Pictures of latents, as near as the components come."""
        apart_RPHW = torch.einsum("rchw,pc->rphw", latents_BTCHW.flatten(0, 1), self.basis * self.spread)
        images_RXY3 = _pixels(F.pixel_shuffle(apart_RPHW + self.mean, self.factor))
        return images_RXY3.unflatten(0, latents_BTCHW.shape[:2])


class Vae(nn.Module):
    """The autoencoder of Stable Video Diffusion (arXiv 2311.15127), frozen: the mode of what it encodes, scaled.

    zoom  how many times larger pictures are shown to it than they are: it was trained on large ones

    `scale` is the factor of its latents; what the network is told of the present is not multiplied by it.
    """

    def __init__(self, vae: AutoencoderKLTemporalDecoder, zoom: int = 1):
        super().__init__()
        if zoom < 1:
            raise ValueError(f"zoom: expected a whole number of at least 1, found {zoom}; 1 is as they are")
        self.vae, self.zoom = vae.eval().requires_grad_(False), zoom
        made = settings(vae)
        self.channels: int = made["latent_channels"]
        self.scale: float = made["scaling_factor"]
        self.factor = 2 ** (len(made["block_out_channels"]) - 1)

    def about(self) -> dict:
        """What it takes to make one of this shape."""
        return {"zoom": self.zoom, "config": settings(self.vae)}

    def cells(self, height: int, width: int) -> tuple[int, int]:
        """Cells (H, W) of a picture. ValueError if they do not tile it."""
        return cells(height * self.zoom, width * self.zoom, self.factor)

    @torch.no_grad()
    def encode(self, images_BTXY3: UInt8[Tensor, "B T X Y 3"]) -> Float[Tensor, "B T C H W"]:
        """Latents of pictures."""
        self.cells(*images_BTXY3.shape[2:4])
        pixels_R3XY = images_BTXY3.flatten(0, 1).movedim(-1, 1) / 127.5 - 1
        if self.zoom > 1:
            pixels_R3XY = F.interpolate(pixels_R3XY, scale_factor=float(self.zoom), mode="bilinear")
        latent_RCHW = self.vae.encode(pixels_R3XY).latent_dist.mode() * self.scale
        return latent_RCHW.unflatten(0, images_BTXY3.shape[:2])

    @torch.no_grad()
    def decode(self, latents_BTCHW: Float[Tensor, "B T C H W"]) -> UInt8[Tensor, "B T X Y 3"]:
        """Pictures of latents."""
        frames = latents_BTCHW.shape[1]
        pixels_R3XY = self.vae.decode(latents_BTCHW.flatten(0, 1) / self.scale, num_frames=frames).sample
        return _pixels(F.avg_pool2d(pixels_R3XY, self.zoom)).unflatten(0, latents_BTCHW.shape[:2])


Codec = Patches | Vae


def cells(height: int, width: int, factor: int) -> tuple[int, int]:
    """How many squares of `factor` pixels a picture has, down and across. ValueError if they do not tile it."""
    if height % factor or width % factor:
        do = "choose another camera, factor or zoom"
        raise ValueError(f"pictures: expected sides that are multiples of {factor}, found {height} x {width}; {do}")
    return height // factor, width // factor


def _squares(images_NXY3: Tensor, factor: int) -> Float[Tensor, "N P H W"]:
    """The numbers of each square, in [-1, 1], float64: sums over a data set should not depend on their order."""
    return F.pixel_unshuffle(images_NXY3.movedim(-1, 1).double() / 127.5 - 1, factor)


def _pixels(picture_N3XY: Tensor) -> UInt8[Tensor, "N X Y 3"]:
    return ((picture_N3XY + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).movedim(1, -1)
