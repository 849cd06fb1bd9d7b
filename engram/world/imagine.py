"""A future that a policy looks into: features of a world model, summed up per step, and heeded as far as a gate opens
(MemoryVLA++).

pyramid      a feature pyramid over the maps (arXiv 1612.03144): 1x1 convolutions, coarse added to fine, averaged to
             `side` x `side` tokens a frame
former       learned queries look at the tokens of their own step; then those of all steps at one another; then an MLP
guidance     tokens of the present look at what is imagined: h = p + FFN(CrossAttn(p; imagined)); p' = g p + (1 - g) h
             with g = sigmoid(MLP[h; p]), or p' = h ("add")

At first p' = p: the last layer of the FFN begins at zero, and the gate at OPEN.

Legend: B rows, K steps of the future, R = B K, C H W a map, Z tokens of a frame, Q queries of a step, I = K Q imagined
tokens, N tokens of the present, D width.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

OPEN = 0.01  # how far the gate is open before anything is learned: 1 - g


class Attention(nn.Module):
    """Queries (B,N,D) look at tokens (B,M,D)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.both, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, q_BND: Float[Tensor, "B N D"], x_BMD: Float[Tensor, "B M D"]) -> Float[Tensor, "B N D"]:
        """What they see."""
        parts = (self.query(q_BND), *self.both(x_BMD).chunk(2, -1))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Pyramid(nn.Module):
    """Maps of several sizes, from the coarsest, as `side` x `side` tokens of `width`; each knows its place."""

    def __init__(self, channels: Sequence[int], width: int, side: int):
        super().__init__()
        self.side = side
        self.laterals = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.norm, self.place = nn.LayerNorm(width), nn.Parameter(0.02 * torch.randn(side**2, width))

    def forward(self, maps: list[Float[Tensor, "R _ _ _"]]) -> Float[Tensor, "R Z D"]:
        """Tokens of each frame."""
        first, *finer = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        for x_RDHW in finer:
            first = x_RDHW + F.interpolate(first, x_RDHW.shape[-2:], mode="nearest")
        return self.norm(F.adaptive_avg_pool2d(first, self.side).flatten(2).mT) + self.place


class Former(nn.Module):
    """One layer: queries look at their step, at the other steps, and think."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.space, self.time = Attention(width, heads), Attention(width, heads)
        self.norm_space, self.norm_time, self.norm_feed = (nn.LayerNorm(width) for _ in range(3))
        self.feed = _feed(width)

    def forward(self, q_BKQD: Float[Tensor, "B K Q D"], z_BKZD: Float[Tensor, "B K Z D"]) -> Float[Tensor, "B K Q D"]:
        """Queries after this layer; a query of one step sees its likes of the others."""
        q_RQD = self.norm_space(q_BKQD).flatten(0, 1)
        q_BKQD = q_BKQD + self.space(q_RQD, z_BKZD.flatten(0, 1)).view_as(q_BKQD)
        q_BQKD = self.norm_time(q_BKQD).transpose(1, 2)
        seen_BQKD = self.time(q_BQKD.flatten(0, 1), q_BQKD.flatten(0, 1)).view_as(q_BQKD)
        q_BKQD = q_BKQD + seen_BQKD.transpose(1, 2)
        return q_BKQD + self.feed(self.norm_feed(q_BKQD))


class Imagination(nn.Module):
    """From the features of a world model to tokens of the present that know them.

    channels  of each map, from the coarsest (`World.channels`)
    width     D, of the present's tokens
    frames    K
    side      tokens of a frame are side x side
    queries   Q, tokens that a step is summed up in
    depth     layers of the former
    fusion    "guided" by the gate, or "add"

    ValueError for a value that makes no sense.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int,
        frames: int,
        side: int = 4,
        queries: int = 4,
        heads: int = 4,
        depth: int = 1,
        fusion: Literal["guided", "add"] = "guided",
    ):
        super().__init__()
        _require(channels, width, heads, fusion, {"frames": frames, "side": side, "queries": queries, "depth": depth})
        self.pyramid = Pyramid(channels, width, side)
        self.step = nn.Parameter(0.02 * torch.randn(frames, 1, width))
        self.queries = nn.Parameter(0.02 * torch.randn(frames, queries, width))
        self.former = nn.ModuleList(Former(width, heads) for _ in range(depth))
        self.norm, self.norm_feed, self.norm_imagined = (nn.LayerNorm(width) for _ in range(3))
        self.look, self.feed = Attention(width, heads), _feed(width)
        for weight in self.feed[-1].parameters():
            nn.init.zeros_(weight)
        self.gate = _gate(width) if fusion == "guided" else None

    def imagine(self, features: list[Float[Tensor, "B K _ _ _"]]) -> Float[Tensor, "B I D"]:
        """What the former makes of the features. ValueError for another number of steps or maps."""
        b, frames = len(features[0]), len(self.step)
        if (features[0].shape[1], len(features)) != (frames, len(self.pyramid.laterals)):
            expected, found = f"{len(self.pyramid.laterals)} maps of {frames} steps", tuple(features[0].shape)
            raise ValueError(f"features: expected {expected}, found {len(features)} of {found}; use that world model")
        z_BKZD = self.pyramid([x.flatten(0, 1) for x in features]).unflatten(0, (b, frames)) + self.step
        q_BKQD = self.queries.expand(b, -1, -1, -1)
        for layer in self.former:
            q_BKQD = layer(q_BKQD, z_BKZD)
        return self.norm_imagined(q_BKQD.flatten(1, 2))

    def forward(
        self, features: list[Float[Tensor, "B K _ _ _"]], p_BND: Float[Tensor, "B N D"]
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, ""]]:
        """The present that knows the future, and how far the gate is open (mean of 1 - g, without gradient)."""
        seen_BND = self.look(self.norm(p_BND), self.imagine(features))
        h_BND = p_BND + self.feed(self.norm_feed(seen_BND))
        if self.gate is None:
            return h_BND, torch.ones((), device=p_BND.device)
        g_BND = self.gate(torch.cat([h_BND, p_BND], -1)).sigmoid()
        return torch.lerp(h_BND, p_BND, g_BND), 1 - g_BND.detach().mean()


def pooled(features: list[Float[Tensor, "B K _ _ _"]], side: int) -> list[Float[Tensor, "B K _ _ _"]]:
    """Features of a frozen world model as they are worth keeping: averaged to `side` x `side` cells where finer.

    A pyramid of that side makes the same of them, if `side` divides the maps' sizes: it is linear until it averages.
    """
    return [_shrunk(x.flatten(0, 1), side).unflatten(0, x.shape[:2]) for x in features]


def _shrunk(x_RCHW: Tensor, side: int) -> Tensor:
    return F.adaptive_avg_pool2d(x_RCHW, (min(side, x_RCHW.shape[-2]), min(side, x_RCHW.shape[-1])))


def _feed(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


def _gate(width: int) -> nn.Sequential:
    """[h; p] (2 D) to the gate before its sigmoid; for now the same for all tokens."""
    last = nn.Linear(width, width)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, math.log(1 / OPEN - 1))
    return nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), last)


def _require(channels: Sequence[int], width: int, heads: int, fusion: str, counts: dict[str, int]) -> None:
    """ValueError unless all make sense."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}: expected at least 1, found {count}; raise it")
    if not channels or width % heads:
        expected, found = f"maps, and a width that {heads} heads share", f"{len(channels)} maps, width {width}"
        raise ValueError(f"imagination: expected {expected}, found {found}; use another number of heads")
    if fusion not in ("guided", "add"):
        raise ValueError(f"fusion: expected 'guided' or 'add', found {fusion!r}; choose one")
