"""Diffusion expert: MemoryVLA's action transformer, which denoises a chunk given a cognition and perception tokens.

Sequence: one condition token (embedded noise step + projected cognition), then a token for each action. A block lets
them look at one another ("cognition attention"), then at the perception tokens, then passes them through an MLP.
DDPM with 100 noise steps, squared-cosine schedule, the network predicts the noise; DDIM without new noise samples.

Perception is the same at every step, for both halves of guidance and for all draws of a training row. Its keys and
values are projected once a call, and copies of a row (halves or draws) are more queries of one attention over them.

Legend: B rows, G copies of a row, N actions of the chunk, S = 1 + N tokens, A action, P perception tokens, D width,
Z = 2 D keys beside values, T noise steps of the schedule, K steps of sampling, W waves. Cognition and perception keep
their own widths: C and V.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from engram.draws import integers, mix, normal, uniform

NOISE_STEPS = 100
WAVES = 256  # numbers that say the noise step to the network
DROPPED = 0.1  # share of draws that learn without cognition, which guidance needs
START = 90  # the least noisy step that sampling may start at: below it the sample is visible in what should be noise


class Size(NamedTuple):
    """Blocks, width and attention heads."""

    depth: int
    width: int
    heads: int


SIZES = {"xs": Size(3, 128, 4), "S": Size(6, 384, 4), "B": Size(12, 768, 12), "L": Size(24, 1024, 16)}


class Dense(nn.Module):
    """x W + b with W stored as (inputs, outputs), as nn.Linear does not.

    Sampling is bound by products of few rows with many weights, and on a CPU they run 1.2 to 1.5 times as fast on rows
    of W that lie one after the other in memory.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(inputs, outputs)), nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Float[Tensor, "*lead N I"]) -> Float[Tensor, "*lead N O"]:
        """As nn.Linear's."""
        return torch.addmm(self.bias, x.flatten(0, -2), self.weight).unflatten(0, x.shape[:-1])


class Block(nn.Module):
    """The weights of one pre-norm block and its three residuals."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_self, self.norm_look, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.qkv, self.out = Dense(width, 3 * width), Dense(width, width)
        self.look_q, self.look_kv, self.look_out = Dense(width, width), Dense(width, 2 * width), Dense(width, width)
        self.up, self.down = Dense(width, 4 * width), Dense(4 * width, width)

    def extra_repr(self) -> str:
        """What the tensors of a block do not show."""
        return f"heads={self.heads}"

    def forward(self, x_BGSD: Tensor, kv_BPZ: Tensor) -> Tensor:
        """The copies of a row see themselves alone, and all see the row's perception."""
        x_BGSD = x_BGSD + self._own(self.norm_self(x_BGSD))
        x_BGSD = x_BGSD + self._look(self.norm_look(x_BGSD), kv_BPZ)
        return x_BGSD + self.down(F.gelu(self.up(self.norm_mlp(x_BGSD)), approximate="tanh"))

    def _own(self, x_BGSD: Tensor) -> Tensor:
        q, k, v = self.qkv(x_BGSD.flatten(0, 1)).chunk(3, -1)
        return self.out(self._attend(q, k, v)).view_as(x_BGSD)

    def _look(self, x_BGSD: Tensor, kv_BPZ: Tensor) -> Tensor:
        q = self.look_q(x_BGSD.flatten(1, 2))
        return self.look_out(self._attend(q, *kv_BPZ.chunk(2, -1))).view_as(x_BGSD)

    def _attend(self, *qkv_BND: Tensor) -> Tensor:
        q, k, v = (t_BND.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t_BND in qkv_BND)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Diffusion(nn.Module):
    """Actions given one cognition token and any number of perception tokens per row.

    Actions here are normalised to about unit scale (mean 0, deviation 1, or quantiles to [-1, 1]): the noise that
    hides them has deviation 1. As in the paper the estimate of the clean actions is not clipped during sampling.

    cognition, perception  widths of what conditions it (C, V)
    size                   "xs" (for tests and tiny policies), "S", "B" or "L"
    draws                  noise steps with noise that a training row is seen under
    steps                  of DDIM, 1 to 100
    guidance               eps_null + guidance * (eps_cognition - eps_null); 1 is cognition alone, at half the cost

    ValueError for a value outside of these.
    """

    mixture: Tensor
    waves: Tensor
    update: Tensor
    sampled: Tensor

    def __init__(
        self,
        cognition: int,
        perception: int,
        action_dim: int,
        chunk: int,
        size: str = "S",
        draws: int = 4,
        steps: int = 10,
        guidance: float = 1.5,
    ):
        super().__init__()
        _require(size, chunk, draws, steps, guidance)
        self.size, self.chunk, self.draws, self.guidance = size, chunk, draws, guidance
        depth, width, heads = SIZES[size]
        self.null = nn.Parameter(0.02 * torch.randn(cognition))
        self.place = nn.Parameter(0.02 * torch.randn(1 + chunk, width))
        self.time = nn.Sequential(nn.Linear(WAVES, width), nn.SiLU(), nn.Linear(width, width))
        self.cognition, self.perception = nn.Linear(cognition, width), nn.Linear(perception, width)
        self.action = nn.Linear(action_dim, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm, self.noise = nn.LayerNorm(width), nn.Linear(width, action_dim)
        self._begin()
        for name, table in _tables(sampled_steps(steps)).items():
            self.register_buffer(name, table, persistent=False)

    def extra_repr(self) -> str:
        """What the tensors of an expert do not show."""
        return f"size={self.size}, draws={self.draws}, steps={len(self.sampled)}, guidance={self.guidance}"

    def keys(self, per_BPV: Float[Tensor, "B P V"]) -> list[Float[Tensor, "B P _"]]:
        """Keys beside values (B,P,2D) of the perception tokens, for each block; in pieces, so that none is copied."""
        per_BPD = self.perception(per_BPV)
        return [block.look_kv(per_BPD) for block in self.blocks]

    @torch.no_grad()
    def sample(
        self, cog_BC: Float[Tensor, "B C"], per_BPV: Float[Tensor, "B P V"], noise_BNA: Float[Tensor, "B N A"]
    ) -> Float[Tensor, "B N A"]:
        """Normalised actions, a function of the standard normal `noise` (engram/draws.py); without gradient."""
        kv, x_BNA = self.keys(per_BPV), noise_BNA
        halves = [cog_BC] if self.guidance == 1 else [cog_BC, self.null.expand_as(cog_BC)]
        cog_BGD = self.cognition(torch.stack(halves, 1))
        for time_D, (keep, add) in zip(self.time(self.waves[self.sampled]), self.update, strict=True):
            eps_BGNA = self.predict(time_D + cog_BGD, x_BNA.unsqueeze(1), kv)
            x_BNA = keep * x_BNA + add * self._guided(eps_BGNA)
        return x_BNA

    def loss(
        self,
        cog_BC: Float[Tensor, "B C"],
        per_BPV: Float[Tensor, "B P V"],
        target_BNA: Float[Tensor, "B N A"],
        ok_BN: Bool[Tensor, "B N"],
        key_B: Int64[Tensor, "B"],
        weight_B: Float[Tensor, "B"] | None = None,
    ) -> Tensor:
        """Mean squared error of the predicted noise over the actions with `ok`, each row's multiplied by its weight.

        All chance comes from `key`. Actions without `ok` (padding) do not count, and nothing depends on their values:
        they enter as noise around 0.
        """
        step_BG, dropped_BG, eps_BGNA = self._drawn(key_B)
        signal_BG11, spread_BG11 = self.mixture[step_BG][..., None, None].unbind(2)
        clean_B1NA = torch.where(ok_BN.unsqueeze(-1), target_BNA, 0.0).unsqueeze(1)
        noisy_BGNA = signal_BG11 * clean_B1NA + spread_BG11 * eps_BGNA
        cog_BGC = torch.where(dropped_BG.unsqueeze(-1), self.null, cog_BC.unsqueeze(1))
        condition_BGD = self.time(self.waves[step_BG]) + self.cognition(cog_BGC)
        error_BGNA = self.predict(condition_BGD, noisy_BGNA, self.keys(per_BPV)) - eps_BGNA
        each_BN = error_BGNA.square().mean((1, 3))
        if weight_B is not None:
            each_BN = each_BN * weight_B[:, None]
        return (each_BN * ok_BN).sum() / ok_BN.sum().clamp(min=1)

    def predict(
        self,
        condition_BGD: Float[Tensor, "B G D"],
        noisy_BGNA: Float[Tensor, "B _ N A"],
        kv: list[Float[Tensor, "B P _"]],
    ) -> Float[Tensor, "B G N A"]:
        """The noise in `noisy`, which a row has once for all its copies or for each of them; `kv` is from `keys`."""
        action_BGND = self.action(noisy_BGNA).expand(-1, condition_BGD.shape[1], -1, -1)
        x_BGSD = torch.cat([condition_BGD.unsqueeze(2), action_BGND], 2) + self.place
        for block, kv_BPZ in zip(self.blocks, kv, strict=True):
            x_BGSD = block(x_BGSD, kv_BPZ)
        return self.noise(self.norm(x_BGSD[:, :, 1:]))

    def _guided(self, eps_BGNA: Tensor) -> Tensor:
        if self.guidance == 1:
            return eps_BGNA[:, 0]
        known_BNA, null_BNA = eps_BGNA.unbind(1)
        return null_BNA + self.guidance * (known_BNA - null_BNA)

    def _drawn(self, key_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of every draw: its noise step (B,G), whether cognition is dropped (B,G), its noise (B,G,N,A)."""
        step_BG = integers(mix(key_B, 0), NOISE_STEPS, self.draws)
        dropped_BG = uniform(mix(key_B, 1), self.draws) < DROPPED
        return step_BG, dropped_BG, normal(mix(key_B, 2), self.draws, self.chunk, self.noise.out_features)

    def _begin(self) -> None:
        """Xavier as in the paper's transformer; at first every block ignores perception and no noise is predicted.

        Perception is ignored by its last projection alone: that one learns at once, and then those before it.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):  # Dense begins so by itself
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, Block):
                nn.init.zeros_(module.look_out.weight)
        nn.init.zeros_(self.noise.weight)


def kept(noise_steps: int = NOISE_STEPS) -> Float[Tensor, "T"]:
    """alpha-bar, float64: the share of the signal's variance after each noise step (Nichol and Dhariwal 2021)."""
    at = torch.arange(noise_steps + 1, dtype=torch.float64) / noise_steps
    curve = ((at + 0.008) / 1.008 * math.pi / 2).cos().square()
    return (curve[1:] / curve[:-1]).clamp(min=0.001).cumprod(0)


def sampled_steps(steps: int) -> list[int]:
    """The noise steps that DDIM visits, from the noisiest: equally far apart, 90, 80, ... 0 for the paper's ten."""
    start = max(START * steps, NOISE_STEPS * (steps - 1))
    return [(start - NOISE_STEPS * k) // steps for k in range(steps)]


def _tables(sampled: list[int]) -> dict[str, Tensor]:
    """The schedule: what is mixed into a noisy action, waves that name a noise step, and how DDIM moves an action."""
    kept_T = kept()
    mix_T2 = torch.stack([kept_T, 1 - kept_T], 1).sqrt()
    now, then = mix_T2[sampled], torch.cat([mix_T2[sampled[1:]], torch.tensor([[1.0, 0.0]], dtype=torch.float64)])
    keep_K = then[:, 0] / now[:, 0]
    update_K2 = torch.stack([keep_K, then[:, 1] - keep_K * now[:, 1]], 1)
    pace = torch.exp(-math.log(10000) * torch.arange(WAVES // 2) / (WAVES // 2))
    angle = torch.arange(len(kept_T)).unsqueeze(1) * pace
    waves_TW = torch.cat([angle.cos(), angle.sin()], 1)
    tables = {"mixture": mix_T2.float(), "waves": waves_TW, "update": update_K2.float()}
    return tables | {"sampled": torch.tensor(sampled)}


def _require(size: str, chunk: int, draws: int, steps: int, guidance: float) -> None:
    """ValueError unless all are in range."""
    if size not in SIZES:
        raise ValueError(f"size: expected one of {', '.join(SIZES)}, found {size!r}; the first is for tests")
    if chunk < 1:
        raise ValueError(f"chunk: expected at least 1 action, found {chunk}; plan one or more")
    if draws < 1:
        raise ValueError(f"draws: expected at least 1 for each row, found {draws}; the paper has 4")
    if not 1 <= steps <= NOISE_STEPS:
        raise ValueError(f"steps: expected 1 to {NOISE_STEPS}, found {steps}; the paper has 10")
    if not guidance >= 0:
        raise ValueError(f"guidance: expected 0 or more, found {guidance}; 1 is without, the paper has 1.5")
