"""Small policies for the recall game of tests/game.py: one that solves it, one that forgets."""

import torch
from game import SIDE
from torch import Tensor, nn

from engram.carry import Carry, lasting, where
from engram.policies.base import Policy, counted, remembering
from engram.types import Chunk, Observation, Spec

SPEC = Spec(("base", "wrist"), SIDE, SIDE, 7, 7, 20.0)


class CuePolicy(Policy):
    """Remembers the last picture of one colour, and points at the stripe that looks most like it."""

    spec, chunk = SPEC, 4

    def __init__(self, replan: int = 1) -> None:
        super().__init__()
        self.replan = replan
        self.scale = nn.Parameter(torch.ones(()))

    def init(self, batch: int) -> Carry:
        memory = {"memory/colour": torch.zeros(batch, 2, 3), "memory/written": torch.zeros(batch, dtype=torch.int64)}
        return remembering(memory, batch)

    def observe(self, carry: Carry, obs: Observation, first_B: Tensor) -> Carry:
        carry = where(first_B, self.init(len(first_B)), lasting(carry))
        carry = counted(carry, carry, torch.ones_like(first_B))
        stripes = obs.images[:, 0].float().div(255).unflatten(2, (3, 4)).mean((1, 3))  # (B, 3 stripes, RGB)
        cue_B = (stripes.std(1) == 0).all(-1) & (stripes.sum((1, 2)) > 0)
        seen = {
            "memory/colour": self.scale * stripes[:, :1].expand(-1, 2, -1),
            "memory/written": carry["memory/written"] + 1,
        }
        return {**where(cue_B, {**carry, **seen}, carry), "now/stripes": stripes}

    def act(self, carry: Carry) -> tuple[Chunk, Carry]:
        match = torch.einsum("bsc,bc->bs", carry["now/stripes"], carry["memory/colour"].mean(1))
        actions = torch.zeros(len(match), self.chunk, self.spec.action_dim)
        actions[:, :, 0] = (match.argmax(1).float() - 1)[:, None]
        return Chunk(actions), carry

    def loss(self, carry: Carry, window: object) -> tuple:
        raise NotImplementedError("a double does not learn")


class BlindPolicy(CuePolicy):
    """Remembers nothing: its carry holds no memory."""

    def init(self, batch: int) -> Carry:
        return {"expert/phase": torch.zeros(batch, 1)}

    def observe(self, carry: Carry, obs: Observation, first_B: Tensor) -> Carry:
        return {"expert/phase": carry["expert/phase"] + 1, "now/stripes": obs.images[:, 0, 0, ::4].float()}

    def act(self, carry: Carry) -> tuple[Chunk, Carry]:
        return Chunk(torch.zeros(len(carry["now/stripes"]), self.chunk, self.spec.action_dim)), carry
