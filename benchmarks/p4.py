"""P4: a training window of truncated backpropagation through time, against the plain loop of the released code.

Ours is `Through.loss` under the mask "full": vision of the whole window in one batch, only the memory chain tick by
tick, the actions of all ticks in one batch. The reference, on the same weights, does each tick by itself: vision, then
one attention over [scene | text | memory | action slots] under a dense mask that keeps the action slots from being
seen, the tick's loss added up, one backward at the end. Loss and every gradient are equal before anything is timed.

The released code recomputes all layers in the backward pass (gradient checkpointing, which its README requires) because
K graphs live at once. The deciding ratio is against a reference that does not; `recompute_ratio` against one that does.

Legend: B rows, C scene and text tokens, S = C + M + N all tokens, M memory tokens, N action slots, D width.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import inputs
from engram import carry as carries
from engram.backbones.streams import Layer
from engram.backbones.tiny import Tiny
from engram.bench import Bar, Ratio, alternate, assert_equal, result
from engram.policies.base import counted
from engram.policies.build import Design
from engram.policies.through import Through
from engram.types import Observation, Window

TITLE = "one training window, mask full: time of the plain loop over ours"
AGAINST = ()
BAR = Bar("more", 1.5)


@dataclass(frozen=True)
class Shape:
    """Rows B, window of K ticks, cameras (16 tokens each), memory tokens m, chunk and size of the backbone."""

    rows: int
    ticks: int
    cameras: int
    m: int
    chunk: int
    size: str


SHAPES = {
    "release": Shape(rows=4, ticks=8, cameras=2, m=8, chunk=8, size="s"),
    # 128 + 1 + 9 tokens of context, 170 in all; one row, so that the whole benchmark stays within its minute
    "small": Shape(rows=1, ticks=8, cameras=8, m=16, chunk=16, size="l"),
    "long": Shape(rows=4, ticks=32, cameras=2, m=8, chunk=8, size="s"),
}


def measure(seconds: float = 7.0) -> dict:
    """The JSON of the row; `seconds` for each shape. The deciding ratio is the worst of "release" and "long"."""
    ratios = {name: against_plain(shape, seconds) for name, shape in SHAPES.items()}
    worst = min(ratios["release"], ratios["long"], key=lambda ratio: ratio.median)
    insulated = {name: against_insulated(SHAPES["release"], name, seconds / 2) for name in ("all", "slots")}
    recompute = against_plain(SHAPES["release"], seconds, partial(plain, again=True))
    return result(
        TITLE,
        BAR,
        worst,
        shapes={name: {**asdict(SHAPES[name]), **ratio.json()} for name, ratio in ratios.items()},
        flop_ratio=flop_ratio(SHAPES["release"]),
        recompute_ratio=recompute.json(),
        insulated_ratio={name: ratio.json() for name, ratio in insulated.items()},
    )


def against_plain(shape: Shape, seconds: float, reference: "Loss | None" = None) -> Ratio:
    """Time of the plain loop over ours, once loss and gradients have been found equal."""
    policy, window, reference = inputs.policy(design(shape), shape.cameras), window_of(shape), reference or plain
    require_equal(policy, window, reference)
    return alternate(training(policy, window, reference), training(policy, window, ours), seconds)


def flop_ratio(shape: Shape) -> float:
    """Multiplications of the plain loop over ours (attention not counted): the ratio by arithmetic alone."""
    policy, window, total = inputs.policy(design(shape), shape.cameras), window_of(shape), []
    for loss in (plain, ours):
        with FlopCounterMode(display=False) as counter:
            training(policy, window, loss)()
        total.append(counter.get_total_flops())
    return round(total[0] / total[1], 4)


def against_insulated(shape: Shape, trained: str, seconds: float) -> Ratio:
    """Time of ours under the mask "full" over ours under "insulated"; with "slots" the features are kept beforehand."""
    window = window_of(shape)
    full = inputs.policy(design(shape), shape.cameras)
    insulated = inputs.policy(design(shape, mask="insulated", trained=trained), shape.cameras)
    kept = window
    if trained == "slots":
        with torch.no_grad():
            features = insulated.trunk.features(window.obs.flat()).unflatten(0, window.first.shape)
        kept = replace(window, features=features)
    return alternate(training(full, window, ours), training(insulated, kept, ours), seconds)


def design(shape: Shape, mask: str = "full", trained: str = "all") -> Design:
    """muVLA's memory, gradients through the whole window."""
    return Design(m=shape.m, rule="plain", chunk=shape.chunk, size=shape.size, mask=mask, trained=trained)


def window_of(shape: Shape) -> Window:
    """Random frames and targets of a shape."""
    return inputs.window(shape.cameras, shape.rows, shape.ticks, shape.chunk)


Loss = Callable[[Through, Window], Tensor]


def training(policy: Through, window: Window, loss: Loss) -> Callable[[], None]:
    """One training step without the optimizer: gradients forgotten, forward, backward."""

    def step() -> None:
        policy.zero_grad(set_to_none=True)
        loss(policy, window).backward()

    return step


def ours(policy: Through, window: Window) -> Tensor:
    """The library's own loss."""
    return policy.loss(policy.init(window.first.shape[0]), window)[0]


def plain(policy: Through, window: Window, again: bool = False) -> Tensor:
    """The reference: everything of a tick, then the next tick. `again` computes layers anew in the backward pass."""
    carry = policy.init(window.first.shape[0])
    use_BTN = window.target_ok & window.valid.unsqueeze(-1)
    total = torch.zeros(())
    for t in range(window.ticks):
        carry = carries.where(window.first[:, t], policy.init(len(use_BTN)), carry)
        obs = window.obs.at(t)
        read_BMD = policy.memory.read(carry, policy.place, obs.tick)[0]
        memory_BMD, actions_BND = plain_tick(policy, read_BMD, obs, again)
        memory = carries.select(carry, "memory/")
        memory = policy.memory.write(memory, memory_BMD, window.obs.tick[:, t], window.valid[:, t])
        carry = counted(carry, memory, window.valid[:, t])
        target_BNA = policy.head.action(window.target[:, t])
        loss = policy.head.expert.loss(actions_BND, target_BNA, use_BTN[:, t])
        total = total + loss * use_BTN[:, t].sum() / use_BTN.sum()
    return total


def plain_tick(policy: Through, memory_BMD: Tensor, obs: Observation, again: bool) -> tuple[Tensor, Tensor]:
    """One pass over all tokens under a dense mask: hidden states of the memory tokens and of the action slots."""
    backbone: Tiny = policy.trunk.backbone
    text_BSD, text_ok_BS = backbone.text(obs.instruction)
    x_BCD = torch.cat([backbone.embed(backbone.see(obs.images), obs.proprio), text_BSD], 1)
    actions_BND = policy.head.expert.slots.expand(len(x_BCD), -1, -1)
    x_BND = torch.cat([memory_BMD + policy.place, actions_BND], 1)
    m = memory_BMD.shape[1]
    ok_BSS = dense_mask(text_ok_BS, x_BCD.shape[1], m, actions_BND.shape[1])
    for theirs, own in zip(backbone.context.layers, backbone.slots.layers, strict=True):
        layer = (theirs, own, x_BCD, x_BND, ok_BSS)
        x_BCD, x_BND = checkpoint(plain_layer, *layer, use_reentrant=False) if again else plain_layer(*layer)
    hidden_BND = backbone.slots.norm(x_BND)
    return hidden_BND[:, :m], hidden_BND[:, m:]


def plain_layer(theirs: Layer, own: Layer, x_BCD: Tensor, x_BND: Tensor, ok_BSS: Tensor) -> tuple[Tensor, Tensor]:
    """One layer of both streams: a token passes through its own stream's weights only, all meet in one attention."""
    size = x_BCD.shape[1]
    (qc, kvc), (qs, kvs) = theirs.project(x_BCD), own.project(x_BND)
    seen_BSD = own.attend(torch.cat([qc, qs], 1), torch.cat([kvc, kvs], 2), ok_BSS)
    return theirs.finish(x_BCD, seen_BSD[:, :size]), own.finish(x_BND, seen_BSD[:, size:])


def dense_mask(text_ok_BS: Tensor, context: int, memory: int, actions: int) -> Tensor:
    """The memory-action guard as a mask (B,S,S): padding is never seen, action slots only by action slots."""
    rows, text = text_ok_BS.shape
    size = context + memory + actions
    ok_BSS = torch.ones(rows, size, size, dtype=torch.bool)
    ok_BSS[:, :, context - text : context] = text_ok_BS.unsqueeze(1)
    ok_BSS[:, : context + memory, context + memory :] = False
    return ok_BSS


def require_equal(policy: Through, window: Window, reference: Loss) -> None:
    """AssertionError unless `reference` has the loss and all the gradients of ours.

    The loss to 1e-5; gradients to 1e-4 of their largest entry: sums of thousands of terms, taken in another order.
    """
    found = []
    for loss in (ours, reference):
        policy.zero_grad(set_to_none=True)
        value = loss(policy, window)
        value.backward()
        grads = {name: weight.grad for name, weight in policy.named_parameters() if weight.grad is not None}
        found.append({"loss": value.detach(), **grads})
    assert found[0].keys() == found[1].keys(), f"gradients of one side only: {found[0].keys() ^ found[1].keys()}"
    for name, value in found[0].items():
        assert_equal(name, value, found[1][name], 1e-5 if name == "loss" else 1e-4)
