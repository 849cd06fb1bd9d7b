"""P12: a policy step with memory over the same step without: 8 memory tokens beside 138 others, mask full.

A step is observe and act, at every tick, vision included. Before the timing both policies give the actions, and write
the memory, of one pass over all their tokens under a dense mask, on the same weights; the one without memory simply
lacks its tokens.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import inputs
from engram import carry as carries
from engram.backbones.streams import masked
from engram.bench import Bar, alternate, assert_equal, result
from engram.carry import Carry
from engram.policies.base import counted
from engram.policies.build import Design
from engram.policies.through import Through
from engram.types import Observation

TITLE = "policy step with memory over without"
AGAINST = ()
BAR = Bar("less", 1.10)
CAMERAS, MEMORY, CHUNK = 8, 8, 8
OTHERS = CAMERAS * 16 + 1 + 9  # images, proprioception, words


def measure(seconds: float = 15.0, sizes: tuple[int, ...] = (1, 8)) -> dict:
    """The JSON of the row; `seconds` for each batch size. The deciding ratio is the worst."""
    policies = pair(CAMERAS)
    ratios = {}
    for rows in sizes:
        obs = inputs.ticks(CAMERAS, rows, 1).at(0)
        for policy in policies:
            require_equal(policy, obs, dense)
        ratios[rows] = alternate(*(step(policy, policy.init(rows), obs) for policy in policies), seconds)
    worst = max(ratios.values(), key=lambda ratio: ratio.median)
    shapes = {"m": MEMORY, "other_tokens": OTHERS, "chunk": CHUNK, "size": "s", "mask": "full"}
    return result(TITLE, BAR, worst, shapes=shapes, batch={str(rows): ratio.json() for rows, ratio in ratios.items()})


def pair(cameras: int) -> tuple[Through, Through]:
    """The policy with memory, and the one without on the same weights."""
    remembers = inputs.policy(Design(m=MEMORY, mask="full", chunk=CHUNK), cameras)
    forgets = inputs.policy(Design(m=0, mask="full", chunk=CHUNK), cameras, remembers.trunk.backbone)
    forgets.head.load_state_dict(remembers.head.state_dict())
    return remembers, forgets


def step(policy: Through, carry: Carry, obs: Observation) -> Callable[[], tuple[Tensor, Carry]]:
    """One tick in the middle of an episode that observes and acts; the actions and the carry after it."""
    going_on = torch.zeros(len(obs.tick), dtype=torch.bool)

    @torch.inference_mode()
    def call() -> tuple[Tensor, Carry]:
        chunk, after = policy.step(carry, obs, going_on)
        return chunk.actions, after

    return call


@torch.inference_mode()
def dense(policy: Through, carry: Carry, obs: Observation) -> tuple[Tensor, Carry]:
    """Actions and carry from one pass over [scene | text | memory | action slots] under a dense mask."""
    backbone = policy.trunk.backbone
    text_BSD, text_ok_BS = backbone.text(obs.instruction)
    scene_BCD = backbone.embed(backbone.see(obs.images), obs.proprio)
    memory = [] if policy.memory is None else [policy.memory.read(carry, text_BSD, obs.tick)[0] + policy.place]
    actions_BND = policy.head.expert.slots.expand(len(obs.tick), -1, -1)
    x_BSD = torch.cat([scene_BCD, text_BSD, *memory, actions_BND], 1)
    size, context, chunk = x_BSD.shape[1], scene_BCD.shape[1] + text_BSD.shape[1], actions_BND.shape[1]
    ok_BSS = torch.ones(len(x_BSD), size, size, dtype=torch.bool)
    ok_BSS[:, :, scene_BCD.shape[1] : context] = text_ok_BS.unsqueeze(1)
    ok_BSS[:, :-chunk, -chunk:] = False
    hidden_BSD = masked(backbone.context, backbone.slots, x_BSD, torch.arange(size) < context, ok_BSS)
    if policy.memory is not None:
        written_B = torch.ones(len(x_BSD), dtype=torch.bool)
        memory = policy.memory.write(
            carries.select(carry, "memory/"), hidden_BSD[:, context:-chunk], obs.tick, written_B
        )
        carry = counted(carry, memory, written_B)
    return policy.head.action.inverse(policy.head.expert(hidden_BSD[:, -chunk:])), carry


def require_equal(policy: Through, obs: Observation, reference: Callable[..., tuple[Tensor, Carry]]) -> None:
    """AssertionError unless the policy's step gives the actions of `reference` and writes its memory."""
    carry = policy.init(len(obs.tick))
    (actions, after), (expected, written) = step(policy, carry, obs)(), reference(policy, carry, obs)
    assert_equal("actions", actions, expected)
    assert after.keys() == written.keys(), f"expected a carry of {sorted(written)}, found {sorted(after)}"
    for key, value in written.items():
        assert_equal(key, after[key], value)
