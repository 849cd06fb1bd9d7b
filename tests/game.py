"""A recall game without physics: the small double of `engram.envs.tabletop`, without torch, so that workers start fast.

It shows one of three colours, then nothing, then three stripes in shuffled order; the first number of the action in the
second tick of choice says which stripe is touched.
"""

import os
import signal
from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
SIDE = 12


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
        self,
        cue: int = 3,
        delay: int = 5,
        fails_on: tuple[int, ...] = (),
        dies_on: int | None = None,
        grave: str = "",
        skips_frames: bool = False,
    ) -> None:
        self.cue, self.longest = cue, delay
        self.fails_on, self.dies_on, self.skips_frames = fails_on, dies_on, skips_frames
        self.grave = grave  # a file; it dies only while there is none, and makes it
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
        if self.seed_given == self.dies_on and self.tick == 2 and not os.path.exists(self.grave):
            if self.grave:
                open(self.grave, "x").close()
            os.kill(os.getpid(), signal.SIGKILL)
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
