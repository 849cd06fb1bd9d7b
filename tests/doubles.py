"""Small stand-ins: a recall game without physics, and policies that solve it, forget it or misbehave.

The game shows one of three colours, then nothing, then three stripes in shuffled order; the first action number of
the second tick of choice says which stripe is touched. Its interface is that of `engram.envs.tabletop`.
"""

from typing import ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Dict
from torch import Tensor, nn

from engram.carry import Carry, where
from engram.policies.base import Policy
from engram.types import Chunk, Observation, Spec

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
SIDE = 12
SPEC = Spec(("base", "wrist"), SIDE, SIDE, 7, 7, 20.0)


class RecallGame(gymnasium.Env):
    """Colour for `cue` ticks, black for `delay` ticks (drawn up to it), then the choice."""

    metadata: ClassVar[dict] = {"render_modes": ["rgb_array"], "render_fps": 20}
    observation_space = Dict(
        {
            "base": Box(0, 255, (SIDE, SIDE, 3), np.uint8),
            "wrist": Box(0, 255, (SIDE, SIDE, 3), np.uint8),
            "proprio": Box(-np.inf, np.inf, (7,), np.float32),
        }
    )
    action_space = Box(-1, 1, (7,), np.float32)

    def __init__(
        self, cue: int = 3, delay: int = 5, fails_on: tuple[int, ...] = (), skips_frames: bool = False
    ) -> None:
        self.cue, self.longest = cue, delay
        self.fails_on, self.skips_frames = fails_on, skips_frames
        self.render_mode = "rgb_array"

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.seed_given, self.tick, self.frames, self.choice = seed, 0, 0, None
        self.order = [str(name) for name in self.np_random.permutation(list(COLOURS))]
        self.answer = str(self.np_random.choice(list(COLOURS)))
        self.onset = self.cue + int(self.np_random.integers(1, self.longest + 1))
        return self._observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        if not np.isfinite(action).all():
            raise ValueError("expected finite actions")
        if self.seed_given in self.fails_on and self.tick == 2:
            raise RuntimeError("the simulator exploded")
        if self.tick == self.onset + 1:
            self.choice = self.order[int(np.clip(np.rint(action[0]), -1, 1)) + 1]
        self.tick += 1
        done = self.choice is not None
        return self._observe(), float(self.choice == self.answer), done, False, self._info()

    def render(self) -> np.ndarray:
        return self._picture().repeat(4, 0).repeat(4, 1)

    def _picture(self) -> np.ndarray:
        picture = np.zeros((SIDE, SIDE, 3), np.uint8)
        if self.tick < self.cue:
            picture[:] = COLOURS[self.answer]
        elif self.tick >= self.onset:
            for i, name in enumerate(self.order):
                picture[:, 4 * i : 4 * i + 4] = COLOURS[name]
        return picture

    def _observe(self) -> dict:
        self.frames += not (self.skips_frames and self.tick == 1)
        picture = self._picture()
        return {"base": picture, "wrist": picture.copy(), "proprio": np.full(7, self.tick, np.float32)}

    def _info(self) -> dict:
        phase = "cue" if self.tick < self.cue else "delay" if self.tick < self.onset else "choice"
        return {
            "instruction": "touch the colour you saw",
            "tick": self.tick,
            "phase": phase,
            "success": self.choice == self.answer,
            "choice": self.choice,
            "answer": self.answer,
            "onset": self.onset,
            "frames": self.frames,
        }


def make(task: str = "game", **knobs: object) -> RecallGame:
    """The double of `engram.envs.tabletop.make`."""
    assert task == "game"
    return RecallGame(**knobs)


class CuePolicy(Policy):
    """Remembers the last picture of one colour, and points at the stripe that looks most like it."""

    spec, chunk = SPEC, 4

    def __init__(self, replan: int = 1) -> None:
        super().__init__()
        self.replan = replan
        self.scale = nn.Parameter(torch.ones(()))

    def init(self, batch: int) -> Carry:
        return {"memory/colour": torch.zeros(batch, 2, 3), "memory/written": torch.zeros(batch, dtype=torch.int64)}

    def observe(self, carry: Carry, obs: Observation, first_B: Tensor) -> Carry:
        carry = where(first_B, self.init(len(first_B)), {key: carry[key] for key in carry if key.startswith("memory/")})
        stripes = obs.images[:, 0].float().div(255).unflatten(2, (3, 4)).mean((1, 3))  # (B, 3 stripes, RGB)
        cue_B = (stripes.std(1) == 0).all(-1) & (stripes.sum((1, 2)) > 0)
        seen = {
            "memory/colour": self.scale * stripes[:, :1].expand(-1, 2, -1),
            "memory/written": carry["memory/written"] + 1,
        }
        return {**where(cue_B, seen, carry), "now/stripes": stripes}

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
