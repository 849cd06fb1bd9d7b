"""P1: the diffusion expert samples a chunk (10 DDIM steps, guidance), against a plain network on the same weights.

Ours projects keys and values of the perception tokens once a plan; both halves of guidance attend to the same ones. The
reference, our own mathematics, does at each step all that the network says: it embeds perception and projects its keys
and values in every block, for either half, and lays out the weights of attention. Equal before anything is timed.

`flop_ratio` is what arithmetic alone would give (attention's own products not counted). Time stays below it where a
plan has few rows: each of the ten steps reads all weights for them, and that is as slow for both sides.
`training_ratio` is the loss and its gradients for one row with 4 draws: the reference repeats the row for each draw.

Legend: as in engram/experts/diffusion.py; R = G * B rows of the reference, one for each copy of a row.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from engram import draws
from engram.bench import Bar, Ratio, alternate, assert_equal, result
from engram.experts.diffusion import Block, Diffusion

TITLE = "diffusion expert, 10 steps: time of the plain network over ours (at chunk 4: >= 5)"
AGAINST = ()
BAR = Bar("more", 2.5)


@dataclass(frozen=True)
class Shape:
    """Rows B, chunk N and perception tokens P; widths as released, 7 action dimensions."""

    rows: int
    chunk: int
    perception: int
    size: str = "S"
    widths: tuple[int, int] = (4096, 256)  # of cognition and perception


SHAPES = {
    "T=16": Shape(rows=1, chunk=16, perception=256),
    "T=4": Shape(rows=1, chunk=4, perception=256),  # MIKASA's
    "T=16, wrist": Shape(rows=1, chunk=16, perception=512),
    "T=4, 4 rows": Shape(rows=4, chunk=4, perception=256),  # as many robots in one plan
}
BARS = {"T=16": BAR, "T=4": Bar("more", 5.0)}
ACTION_DIM = 7
Sampler = Callable[[Diffusion, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Rows:
    """Training rows, and noise to sample from."""

    cognition: Tensor
    perception: Tensor
    target: Tensor
    ok: Tensor
    key: Tensor
    noise: Tensor


Loss = Callable[[Diffusion, Rows], Tensor]


def measure(seconds: float = 6.0) -> dict:
    """The JSON of the row; `seconds` for each sampling measurement, half of it for each of training.

    Two shapes have a bar of their own. The row's ratio and bar are those of the shape that has less to spare (the
    smaller ratio / bar), so that `met` says whether both bars are reached.
    """
    ratios = {name: sampling(shape, seconds) for name, shape in SHAPES.items()}
    decides = min(BARS, key=lambda name: ratios[name].median / BARS[name].value)
    shapes = {name: {**asdict(SHAPES[name]), **ratio.json()} for name, ratio in ratios.items()}
    for name, shape in SHAPES.items():
        shapes[name]["flop_ratio"] = flop_ratio(shape)
    for name, bar in BARS.items():
        shapes[name] |= {"bar": bar.value, "met": bar.met(ratios[name])}
    learning = {name: training(SHAPES[name], seconds / 2).json() for name in BARS}
    return result(TITLE, BARS[decides], ratios[decides], decides=decides, shapes=shapes, training_ratio=learning)


def sampling(shape: Shape, seconds: float) -> Ratio:
    """Time of the plain sampler over ours, once their actions have been found equal."""
    expert, rows = make(shape), random_rows(shape)
    given = (expert, rows.cognition, rows.perception, rows.noise)
    require_equal_actions(expert, rows)
    return alternate(lambda: plain_sample(*given), lambda: Diffusion.sample(*given), seconds)


def training(shape: Shape, seconds: float) -> Ratio:
    """Time of the plain loss with its gradients over ours, once both have been found equal."""
    expert, rows = make(shape), random_rows(shape)
    require_equal_loss(expert, rows)

    def step(loss: Loss) -> None:
        expert.zero_grad(set_to_none=True)
        loss(expert, rows).backward()

    return alternate(lambda: step(plain_loss), lambda: step(our_loss), seconds)


def flop_ratio(shape: Shape) -> float:
    """Multiplications in the linear layers of the plain sampler over those of ours."""
    expert, rows, total = make(shape), random_rows(shape), []
    for sample in (plain_sample, Diffusion.sample):
        with FlopCounterMode(display=False) as counter:
            sample(expert, rows.cognition, rows.perception, rows.noise)
        total.append(counter.get_flop_counts()["Global"][torch.ops.aten.addmm])
    return round(total[0] / total[1], 4)


def make(shape: Shape, **settings: float) -> Diffusion:
    """An expert with random weights, the same at every call; those that start as zeros are random too."""
    torch.manual_seed(0)
    expert = Diffusion(*shape.widths, ACTION_DIM, shape.chunk, shape.size, **settings)
    for weight in expert.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.02)
    return expert


def random_rows(shape: Shape) -> Rows:
    """Rows of a shape, the last action of each one padding."""
    b, n = shape.rows, shape.chunk
    cognition, perception = shape.widths
    key_B = torch.arange(b)
    ok_BN = torch.ones(b, n, dtype=torch.bool)
    ok_BN[:, -1] = False
    return Rows(
        cognition=draws.normal(draws.mix(key_B, 0), cognition),
        perception=draws.normal(draws.mix(key_B, 1), shape.perception, perception),
        target=draws.normal(draws.mix(key_B, 2), n, ACTION_DIM),
        ok=ok_BN,
        key=key_B,
        noise=draws.normal(draws.mix(key_B, 3), n, ACTION_DIM),
    )


def our_loss(expert: Diffusion, rows: Rows) -> Tensor:
    """The library's own loss."""
    return expert.loss(rows.cognition, rows.perception, rows.target, rows.ok, rows.key)


@torch.no_grad()
def plain_sample(expert: Diffusion, cog_BC: Tensor, per_BPV: Tensor, noise_BNA: Tensor) -> Tensor:
    """The reference: at each step the whole network on the row with cognition and on the row without."""
    shares, steps = signal_shares(), len(expert.sampled)
    x_BNA, b = noise_BNA, len(noise_BNA)
    per_RPV, cog_RC = torch.cat([per_BPV, per_BPV]), torch.cat([cog_BC, expert.null.expand(b, -1)])
    for step in range(100 - 100 // steps, -1, -(100 // steps)):
        eps_RNA = plain_network(expert, torch.cat([x_BNA, x_BNA]), torch.full((2 * b,), step), cog_RC, per_RPV)
        eps_BNA = eps_RNA[b:] + expert.guidance * (eps_RNA[:b] - eps_RNA[b:])
        share, next_share = shares[step], shares[step - 100 // steps] if step else 1.0
        clean_BNA = (x_BNA - math.sqrt(1 - share) * eps_BNA) / math.sqrt(share)
        x_BNA = math.sqrt(next_share) * clean_BNA + math.sqrt(1 - next_share) * eps_BNA
    return x_BNA


def plain_loss(expert: Diffusion, rows: Rows, weight_B: Tensor | None = None) -> Tensor:
    """The reference: every row again for each draw."""
    g, n = expert.draws, rows.target.shape[1]
    step_R = draws.integers(draws.mix(rows.key, 0), 100, g).flatten()
    dropped_R = draws.uniform(draws.mix(rows.key, 1), g).flatten() < 0.1
    eps_RNA = draws.normal(draws.mix(rows.key, 2), g, n, ACTION_DIM).flatten(0, 1)
    share_R11 = torch.tensor(signal_shares())[step_R, None, None]
    clean_RNA = (rows.target * rows.ok[..., None]).repeat_interleave(g, 0)
    noisy_RNA = share_R11.sqrt() * clean_RNA + (1 - share_R11).sqrt() * eps_RNA
    cog_RC = torch.where(dropped_R[:, None], expert.null, rows.cognition.repeat_interleave(g, 0))
    found_RNA = plain_network(expert, noisy_RNA, step_R, cog_RC, rows.perception.repeat_interleave(g, 0))
    counts_RN = rows.ok.repeat_interleave(g, 0) * (1.0 if weight_B is None else weight_B.repeat_interleave(g)[:, None])
    error_RN = (found_RNA - eps_RNA).square().mean(-1)
    return (error_RN * counts_RN).sum() / (g * rows.ok.sum())


def plain_network(expert: Diffusion, noisy_RNA: Tensor, step_R: Tensor, cog_RC: Tensor, per_RPV: Tensor) -> Tensor:
    """The noise that the network finds, every row by itself: nothing is shared, nothing kept."""
    pace = 10000 ** (-torch.arange(128) / 128)
    waves_RW = torch.cat([(step_R[:, None] * pace).cos(), (step_R[:, None] * pace).sin()], 1)
    condition_RD = expert.time(waves_RW) + expert.cognition(cog_RC)
    x_RSD = torch.cat([condition_RD[:, None], expert.action(noisy_RNA)], 1) + expert.place
    per_RPD = expert.perception(per_RPV)
    for block in expert.blocks:
        x_RSD = plain_block(block, x_RSD, per_RPD)
    return expert.noise(expert.norm(x_RSD))[:, 1:]


def plain_block(block: Block, x_RSD: Tensor, per_RPD: Tensor) -> Tensor:
    """Three residuals; perception's keys and values projected here."""
    x_RSD = x_RSD + block.out(plain_attention(*block.qkv(block.norm_self(x_RSD)).chunk(3, -1), block.heads))
    key_RPD, value_RPD = block.look_kv(per_RPD).chunk(2, -1)
    query_RSD = block.look_q(block.norm_look(x_RSD))
    x_RSD = x_RSD + block.look_out(plain_attention(query_RSD, key_RPD, value_RPD, block.heads))
    return x_RSD + block.down(F.gelu(block.up(block.norm_mlp(x_RSD)), approximate="tanh"))


def plain_attention(q_RSD: Tensor, k_RPD: Tensor, v_RPD: Tensor, heads: int) -> Tensor:
    """softmax(q k^T / sqrt(E)) v for each head, E the width of one."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q_RSD, k_RPD, v_RPD))
    return ((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v).transpose(1, 2).flatten(2)


def signal_shares() -> list[float]:
    """alpha-bar of the squared-cosine schedule after each of 100 noise steps, beta at most 0.999."""
    shares, product = [], 1.0
    for i in range(100):
        now, then = (math.cos((t / 100 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in (i, i + 1))
        product *= 1 - min(1 - then / now, 0.999)
        shares.append(product)
    return shares


def require_equal_actions(expert: Diffusion, rows: Rows, reference: Sampler = plain_sample) -> None:
    """AssertionError unless `reference` samples our actions, to 1e-5 of the largest."""
    given = (expert, rows.cognition, rows.perception, rows.noise)
    assert_equal("actions", Diffusion.sample(*given), reference(*given))


def require_equal_loss(expert: Diffusion, rows: Rows, reference: Loss = plain_loss) -> None:
    """AssertionError unless `reference` has our loss, and our gradients of all weights and of what conditions it.

    All to 1e-5, a gradient's error relative to its largest entry.
    """
    found = []
    for loss in (our_loss, reference):
        expert.zero_grad(set_to_none=True)
        for given in (rows.cognition, rows.perception):
            given.requires_grad_().grad = None
        value = loss(expert, rows)
        value.backward()
        grads = {name: weight.grad for name, weight in expert.named_parameters()}
        found.append(
            {"loss": value.detach(), **grads, "cognition": rows.cognition.grad, "perception": rows.perception.grad}
        )
    for name, value in found[0].items():
        assert_equal(name, value, found[1][name])
