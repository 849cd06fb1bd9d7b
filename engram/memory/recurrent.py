"""Recurrent memory tokens: a few vectors that the backbone rewrites at every tick (muVLA, arXiv 2606.12497, 1.4-1.5).

The hidden states at the memory positions become the next tick's memory tokens. Three rules say how:

plain  M' = h                               the paper's; with K = 1 (a detach by the caller) its "detach"
ema    M' = a sg(h) + (1 - a) sg(M)         the paper's detached moving average
gated  M' = M + g (h - M), g = sigmoid(W [M; h] + b)   ours: a token that need not change is left alone, so that what
       was seen once survives delays never trained on. At the start b = -log(s) with s from 1 to 200 over the channels,
       so that some follow every tick and some hold for hundreds (chrono initialisation, arXiv 1804.11188)

Two things make what is kept loud enough to be found (decision 0007); the paper has neither:

`standard`  h is centred and scaled per token and channel before it is written. Hidden states differ little from tick to
            tick and from scene to scene; what they have in common says nothing
`scale`     the backbone is shown so many times the tokens. A token enters as the first term of a residual stream:
            layers add to it, and what they add should not drown it

Legend: B rows, M memory tokens, D width, S samples.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from engram import carry as carries
from engram.carry import Carry
from engram.memory.base import Memory

SLOWEST = 200.0  # ticks that the slowest channel of a gate holds at the start
SPREAD_FLOOR = 0.05  # least deviation of a hidden state's channel: what hardly moves is not blown up to noise


def gate_bias(width: int, slowest: float) -> Tensor:
    """Biases (D,) of gates of which the first follows every tick and the last holds for about `slowest` ticks."""
    return -torch.linspace(0.0, math.log(slowest), width)


class Standard(nn.Module):
    """(h - centre) / spread of hidden states: the identity until `fit`. Buffers, so that a checkpoint carries them."""

    centre: Tensor
    spread: Tensor

    def __init__(self, tokens: int, width: int):
        super().__init__()
        self.register_buffer("centre", torch.zeros(tokens, width))
        self.register_buffer("spread", torch.ones(tokens, width))

    def fit(self, h_SMD: Float[Tensor, "S M D"]) -> None:
        """Mean and standard deviation (with a floor) from samples of hidden states."""
        self.centre.copy_(h_SMD.mean(0))
        self.spread.copy_(h_SMD.std(0, unbiased=False).clamp(min=SPREAD_FLOOR))

    def forward(self, h_BMD: Float[Tensor, "B M D"]) -> Float[Tensor, "B M D"]:
        """Hidden states, centred and scaled."""
        return (h_BMD - self.centre) / self.spread


class Recurrent(Memory):
    """`tokens` (M >= 1) vectors of `width`, learned at the start, read `scale` (> 0) times as large as they are kept.

    `rule` is "plain", "gated" or a float, the ema's a.
    """

    KEY = "memory/tokens"

    def __init__(
        self, tokens: int, width: int, rule: str | float = "gated", initial_std: float = 1.0, scale: float = 1.0
    ):
        super().__init__()
        if tokens < 1:
            raise ValueError(
                f"memory tokens: expected at least 1, found {tokens}; use no memory (m=0) for a plain policy"
            )
        if rule not in ("plain", "gated") and not (isinstance(rule, float) and 0 <= rule <= 1):
            raise ValueError(f"memory rule: expected 'plain', 'gated' or an ema rate in [0, 1], found {rule!r}")
        if not 0 < scale < math.inf:
            raise ValueError(f"memory scale: expected a finite number above 0, found {scale}")
        self.rule, self.scale = rule, scale
        self.standard = Standard(tokens, width)
        self.initial = nn.Parameter(initial_std * torch.randn(tokens, width))
        self.gate = nn.Linear(2 * width, width) if rule == "gated" else None
        if self.gate is not None:
            with torch.no_grad():
                self.gate.bias.copy_(gate_bias(width, SLOWEST))

    def extra_repr(self) -> str:
        return f"rule={self.rule}, scale={self.scale}"

    @torch.no_grad()
    def begin(self, centre_D: Tensor, spread_D: Tensor, gate_bias_D: Tensor) -> None:
        """Write by these statistics, the same for all tokens, and by gates that look at nothing yet.

        ValueError for a rule without gates.
        """
        if self.gate is None:
            raise ValueError(f"memory rule: expected 'gated' for gates to begin with, found {self.rule!r}; use it")
        self.standard.centre.copy_(centre_D.expand_as(self.standard.centre))
        self.standard.spread.copy_(spread_D.expand_as(self.standard.spread))
        self.gate.weight.zero_()
        self.gate.bias.copy_(gate_bias_D)

    def init(self, batch: int) -> Carry:
        return {self.KEY: self.initial.expand(batch, -1, -1)}

    def write(self, carry: Carry, x_BND: Tensor, tick_B: Tensor, mask_B: Tensor) -> Carry:
        """`x_BND` are the hidden states at the memory positions (N = M)."""
        return carries.where(mask_B, {self.KEY: self._next(carry[self.KEY], self.standard(x_BND))}, carry)

    def read(self, carry: Carry, query_BND: Tensor, tick_B: Tensor) -> tuple[Tensor, Tensor]:
        tokens_BMD = carry[self.KEY]
        return self.scale * tokens_BMD, torch.ones(tokens_BMD.shape[:2], dtype=torch.bool, device=tokens_BMD.device)

    def _next(self, old_BMD: Tensor, new_BMD: Tensor) -> Tensor:
        if self.gate is not None:
            return torch.lerp(old_BMD, new_BMD, self.gate(torch.cat([old_BMD, new_BMD], -1)).sigmoid())
        if self.rule == "plain":
            return new_BMD
        assert isinstance(self.rule, float)
        return torch.lerp(old_BMD.detach(), new_BMD.detach(), self.rule)
