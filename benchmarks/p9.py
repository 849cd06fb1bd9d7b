"""P9: episodes played 16 at a time by one batched policy, over the same episodes one session at a time.

The policy-bound setting: the environment costs next to nothing (frames drawn beforehand, a point that actions move) and
the policy has more than 20 million parameters, so that calls cost little beside what they compute.
Each episode depends on its seed and on every action taken in it; before the timing both ways must give the same
episodes: length, outcome, and the sum of where the point was, to rounding.
"""

from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from benchmarks import inputs
from engram.backbones.tiny import Tiny
from engram.bench import Bar, alternate, result
from engram.envs.vector import VectorEnv
from engram.policies.base import Policy
from engram.policies.build import Design
from engram.rollout.episodes import Record, play

TITLE = "episodes played 16 at a time over one by one"
AGAINST = ()
BAR = Bar("more", 3.0)
LANES, EPISODES, CAMERAS = 16, 32, 2
WIDE = {"width": 512, "heads": 8, "layers": 4, "channels": (32, 64, 128)}  # of the backbone
SHORT, LONG = 4, 8  # ticks of an episode
TOLERANCE = 1e-3  # of the sum of places, which rounding of another batch moves a little


class Point(gymnasium.Env):
    """A point that actions move, and pictures that say nothing; over after a number of ticks that the seed gives."""

    metadata = {"render_fps": 20}

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.frames = rng.integers(0, 256, (8, CAMERAS, 64, 64, 3), np.uint8)
        cameras = {f"camera{i}": Box(0, 255, (64, 64, 3), np.uint8) for i in range(CAMERAS)}
        self.observation_space = Dict({**cameras, "proprio": Box(-np.inf, np.inf, (7,), np.float32)})
        self.action_space = Box(-1, 1, (7,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Put the point at a place of the seed."""
        super().reset(seed=seed)
        self.place = self.np_random.normal(0, 1, 7).astype(np.float32)
        self.limit, self.tick = int(self.np_random.integers(SHORT, LONG + 1)), 0
        return self._seen(), self._info()

    def step(self, action: np.ndarray):
        """Move it; the reward is where it is."""
        self.place, self.tick = self.place + 0.1 * np.tanh(action), self.tick + 1
        return self._seen(), float(self.place.sum()), False, self.tick == self.limit, self._info()

    def _seen(self) -> dict[str, np.ndarray]:
        frame = self.frames[self.tick % len(self.frames)]
        return {**{f"camera{i}": frame[i] for i in range(CAMERAS)}, "proprio": self.place.astype(np.float32)}

    def _info(self) -> dict[str, Any]:
        told = {"instruction": inputs.TEXTS[0], "phase": "choice", "choice": None, "answer": None, "onset": 0}
        return {**told, "tick": self.tick, "success": bool(self.place.sum() > 0), "frames": self.tick + 1}


def measure(seconds: float = 40.0) -> dict:
    """The JSON of the row: how many times longer the same episodes take one by one."""
    policy = inputs.policy(Design(m=8), CAMERAS, Tiny(CAMERAS, inputs.spec(CAMERAS).proprio_dim, **WIDE))
    with VectorEnv(Point, LANES, workers=0) as many, VectorEnv(Point, 1, workers=0) as one:
        together, alone = partial(episodes, policy, many, LANES), partial(episodes, policy, one, 1)
        require_same(together(), alone())
        found = alternate(alone, together, seconds)
    shapes = {"lanes": LANES, "episodes": EPISODES, "cameras": CAMERAS, "m": 8, "ticks": [SHORT, LONG]}
    shapes["parameters"] = sum(weights.numel() for weights in policy.parameters())
    return result(TITLE, BAR, found, shapes=shapes)


def episodes(policy: Policy, envs: VectorEnv, lanes: int) -> list[Record]:
    """The records of all episodes, in the order of their seeds."""
    return sorted(play(policy, envs, lanes, range(EPISODES)), key=lambda record: record["seed"])


def require_same(ours: list[Record], theirs: list[Record]) -> None:
    """AssertionError unless every episode went the same way."""
    for a, b in zip(ours, theirs, strict=True):
        for key in ("seed", "ticks", "success", "counters"):
            assert a[key] == b[key], f"seed {a['seed']}: {key} {a[key]} in a batch, {b[key]} alone"
        assert abs(a["return"] - b["return"]) < TOLERANCE, f"seed {a['seed']}: {a['return']} and {b['return']}"
