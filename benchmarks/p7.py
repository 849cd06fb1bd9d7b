"""P7: what a policy step costs late in an episode over what it costs early, and the bytes it carries.

A recurrent policy runs one episode; a step (observe and act) at tick 1000 is timed beside one at tick 16, from carries
of equal bytes. Equal first: from a carry that was saved and read back, the step gives the running episode's action.

`--against kv-all`: the same backbone as a policy that keeps the keys and values of all frames and never encodes one
twice. Each frame's tokens attend to all frames before, the action slots to everything (our own plain reference; its
cache is allocated once and written in place). Equal first: its actions are those of one masked pass over all frames.

Legend: B rows, C scene tokens, N action slots or tokens, D width.
"""

import io
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks import inputs
from engram import carry as carries
from engram.backbones.streams import masked
from engram.bench import Bar, Ratio, alternate, assert_equal, result
from engram.carry import Carry
from engram.policies.build import Design
from engram.policies.through import Through
from engram.types import Observation

TITLE = "policy step at tick 1000 over tick 16"
BAR = Bar("less", 1.02, interval=True)
AGAINST = ("kv-all",)
KV_TITLE = "policy that keeps all keys and values over ours, tick 1000"
KV_BAR = Bar("more", 20.0)
EARLY, LATE = 16, 1000
HISTORY = {"T=100": (2, 100), "T=1000": (2, 1000), "wide T=100": (7, 100), "wide T=1000": (7, 1000)}  # cameras, ticks


def measure(against: str | None = None, seconds: float = 10.0) -> dict:
    """The JSON of the row; `against` is None or one of AGAINST. `seconds` for each measurement."""
    return _slope(seconds) if against is None else _against_all(seconds)


def _slope(seconds: float) -> dict:
    frames, ratios, size = inputs.ticks(2, 1, 8), {}, {}
    for mask in ("full", "insulated"):
        policy = inputs.policy(design(mask), 2)
        early = episode(policy, frames, range(EARLY), policy.init(1))
        late = episode(policy, frames, range(EARLY, LATE), early)
        size[mask] = require_equal_bytes(early, late)
        require_resumed(policy, late, frames)
        ratios[mask] = alternate(step(policy, late, frames.at(0)), step(policy, early, frames.at(0)), seconds)
    worst = max(ratios.values(), key=lambda ratio: ratio.ci95[0])
    masks = {mask: {**ratio.json(), "bytes": size[mask]} for mask, ratio in ratios.items()}
    shapes = {"rows": 1, "cameras": 2, "m": 8, "chunk": 8, "size": "s", "ticks": [EARLY, LATE]}
    return result(TITLE, BAR, worst, shapes=shapes, masks=masks, bytes_ratio=1.0)


def _against_all(seconds: float) -> dict:
    ratios = {name: over_all(*shape, seconds) for name, shape in HISTORY.items()}
    worst = min((ratio for name, ratio in ratios.items() if HISTORY[name][1] == LATE), key=lambda ratio: ratio.median)
    shapes = {name: dict(zip(("cameras", "ticks"), shape, strict=True)) for name, shape in HISTORY.items()}
    each = {name: ratio.json() for name, ratio in ratios.items()}
    return result(KV_TITLE, KV_BAR, worst, shapes=shapes, against="kv-all", history=each)


def over_all(cameras: int, ticks: int, seconds: float) -> Ratio:
    """Time of a step of `KeepsAll` at its last tick over ours, once the first three ticks were equal to one pass."""
    policy, frames = inputs.policy(design("full"), cameras), inputs.ticks(cameras, 1, 3)
    require_equal_cache(policy, frames)
    everything, obs = KeepsAll(policy, frames.instruction[0], ticks), frames.at(0)
    everything.kv.normal_()  # as if the frames before had been seen
    return alternate(lambda: everything.step(obs, ticks - 1), step(policy, policy.init(1), obs), seconds)


def design(mask: str) -> Design:
    """Eight recurrent tokens."""
    return Design(m=8, mask=mask, chunk=8)


@torch.inference_mode()
def episode(policy: Through, frames: Observation, ticks: range, carry: Carry) -> Carry:
    """The lasting carry after `ticks`, the frames of the window seen again and again."""
    for t in ticks:
        obs = frames.at(t % frames.tick.shape[1])
        carry = carries.lasting(policy.observe(carry, obs, torch.tensor([t == 0])))
    return carry


def step(policy: Through, carry: Carry, obs: Observation) -> Callable[[], Tensor]:
    """One tick in the middle of an episode that observes and acts; the actions."""
    going_on = torch.zeros(1, dtype=torch.bool)

    @torch.inference_mode()
    def call() -> Tensor:
        return policy.step(carry, obs, going_on)[0].actions

    return call


def require_equal_bytes(early: Carry, late: Carry) -> int:
    """Bytes of either carry. AssertionError unless keys, shapes and dtypes are the same."""
    sizes = [{k: (v.shape, v.dtype, v.numel() * v.element_size()) for k, v in carry.items()} for carry in (early, late)]
    assert sizes[0] == sizes[1], f"the carry has grown from {sizes[0]} to {sizes[1]}"
    return sum(size for _, _, size in sizes[0].values())


def require_resumed(policy: Through, carry: Carry, frames: Observation) -> None:
    """AssertionError unless a carry that was written to bytes and read back gives the action of the running one."""
    saved = io.BytesIO()
    torch.save(carry, saved)
    saved.seek(0)
    again = step(policy, torch.load(saved), frames.at(0))()
    assert torch.equal(again, step(policy, carry, frames.at(0))()), "the action depends on more than the carry"


class KeepsAll:
    """The reference of `--against kv-all`, on the weights of `policy` without its memory, one row.

    `kv` is [text | frame 0 | frame 1 | ... | action slots], made once for `ticks` frames; nothing is copied or masked.
    """

    def __init__(self, policy: Through, instruction: str, ticks: int):
        self.policy, self.backbone = policy, policy.trunk.backbone
        self.text, self.frame = len(instruction.split()), self.backbone.place.shape[0] + 1
        tokens = self.text + ticks * self.frame + policy.chunk
        self.kv = torch.zeros(1, self.backbone.layers, 2, tokens, self.backbone.width)
        self.kv[:, :, :, : self.text] = self.backbone.text_keys([instruction])[0][:, :, :, : self.text].detach()

    @torch.inference_mode()
    def step(self, obs: Observation, t: int) -> Tensor:
        """Actions (1,N,A) at tick `t` (from 0); the frame's keys and values are kept."""
        begin, context = self.text + t * self.frame, self.backbone.context.layers
        end = begin + self.frame
        scene_BCD = self._run(context[:-1], embedded(self.policy, obs), begin)
        self.kv[:, -1, :, begin:end] = context[-1].keys(scene_BCD)
        return plan(self.policy, self._run(self.backbone.slots.layers, slots(self.policy), end))

    def _run(self, layers: nn.ModuleList, x_BND: Tensor, begin: int) -> Tensor:
        """Hidden states of tokens that see all before `begin` and one another; their keys and values are kept there."""
        end = begin + x_BND.shape[1]
        for i, layer in enumerate(layers):
            q_BND, self.kv[:, i, :, begin:end] = layer.project(x_BND)
            x_BND = layer.finish(x_BND, layer.attend(q_BND, self.kv[:, i, :, :end], None))
        return x_BND


def in_one_pass(policy: Through, instruction: str, frames: list[Observation]) -> Tensor:
    """The same actions from a single pass over [text | all frames | action slots] under a dense mask."""
    backbone, words = policy.trunk.backbone, len(instruction.split())
    text_BSD = backbone.text([instruction])[0][:, :words]
    parts = [text_BSD, *(embedded(policy, obs) for obs in frames), slots(policy)]
    group_N = torch.cat([torch.full((part.shape[1],), i) for i, part in enumerate(parts)])
    ok_NN = group_N.unsqueeze(0) <= group_N.unsqueeze(1)
    is_context_N = group_N <= len(frames)
    hidden_BND = masked(backbone.context, backbone.slots, torch.cat(parts, 1), is_context_N, ok_NN.unsqueeze(0))
    return plan(policy, hidden_BND[:, ~is_context_N], normed=True)


def embedded(policy: Through, obs: Observation) -> Tensor:
    """Input tokens of one frame."""
    return policy.trunk.backbone.embed(policy.trunk.backbone.see(obs.images), obs.proprio)


def slots(policy: Through) -> Tensor:
    """Action slots of one row."""
    return policy.head.expert.slots.expand(1, -1, -1)


def plan(policy: Through, hidden_BND: Tensor, normed: bool = False) -> Tensor:
    """Actions of the slots' last hidden states."""
    hidden_BND = hidden_BND if normed else policy.trunk.backbone.slots.norm(hidden_BND)
    return policy.head.action.inverse(policy.head.expert(hidden_BND))


def require_equal_cache(policy: Through, window: Observation, make: Callable[..., KeepsAll] = KeepsAll) -> None:
    """AssertionError unless step by step gives the actions of one masked pass at every tick of the window."""
    text, ticks = window.instruction[0], window.tick.shape[1]
    frames, everything = [window.at(t) for t in range(ticks)], make(policy, text, ticks)
    for t in range(ticks):
        with torch.inference_mode():
            reference = in_one_pass(policy, text, frames[: t + 1])
        assert_equal(f"actions at tick {t}", everything.step(frames[t], t), reference)
