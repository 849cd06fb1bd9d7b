"""What the families of the tabletop share: spaces, the order of a control tick, what is observed and told, knobs."""

import abc
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from engram.envs.tabletop import scene
from engram.envs.tabletop.table import CAMERAS, HIGH, LOW, Table

MOST_DELAY = 500
GRID = (-0.12, 0.0, 0.12)  # centres of the places for cubes along x and y, metres
JITTER = 0.012
START = 0.06  # the fingertip starts within |x|, |y| <= START at about cruise height

Places = dict[str, tuple[float, float, float]]  # colour -> centre of its cube, metres
Ticks = int | Sequence[int]  # a number, or the ends of a range


class Task(gymnasium.Env, abc.ABC):
    """An episode on the table: something is shown, a wait, then it is acted upon. A family says what.

    Knobs that all families have; one of another kind or out of range is a ValueError.

    Args:
        table: the simulation, of pictures of `image_size` pixels a side, 16 to 512.
        visible: what is to be remembered stays in view.
        free_arm: actions have an effect before the choice too.
        limit: ticks of choice, or since the last press, after which the episode is truncated.
        images: False leaves the images black and saves drawing them (for experts, which see the state).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": scene.CONTROL_HZ}
    instruction: str

    def __init__(self, table: Table, visible: bool, free_arm: bool, limit: int, images: bool, render_mode: str | None):
        number("limit", limit, 1, 10_000)
        flags(visible=visible, free_arm=free_arm, images=images)
        self.table, self.visible, self.free_arm = table, visible, free_arm
        self.limit, self.images, self.render_mode = limit, images, render_mode
        picture = spaces.Box(0, 255, (table.size, table.size, 3), np.uint8)
        low, high = (np.append(bound, end).astype(np.float32) for bound, end in ((LOW - 0.1, -0.1), (HIGH + 0.1, 1.1)))
        pose = spaces.Box(low, high)
        self.observation_space = spaces.Dict({**dict.fromkeys(CAMERAS, picture), "proprio": pose})
        self.action_space = spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.answer: str | None = None
        self.choice: str | None = None
        self.over = True  # until the first reset

    @property
    @abc.abstractmethod
    def answers(self) -> list[str]:
        """All that `answer` can be, equally likely."""

    @property
    @abc.abstractmethod
    def success(self) -> bool:
        """Whether the task has been done."""

    @property
    @abc.abstractmethod
    def ended(self) -> bool:
        """Whether the episode has been decided, one way or the other."""

    @abc.abstractmethod
    def privileged(self) -> dict[str, Any]:
        """The state that no camera need show: for experts and audits, never for policies."""

    @abc.abstractmethod
    def _begin(self, draw: np.random.Generator) -> None:
        """Draw an episode: `answer`, `cue_end`, `onset`, and the arm's pose."""

    @abc.abstractmethod
    def _act(self, action: np.ndarray) -> None:
        """Move for one control tick, and see what comes of it."""

    @abc.abstractmethod
    def _show(self) -> None:
        """Put on the table what this tick shows."""

    @property
    def phase(self) -> str:
        """What this tick shows: "cue", "delay" or "choice"."""
        return "choice" if self.tick >= self.onset else "cue" if self.tick < self.cue_end else "delay"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Draw an episode; `seed` decides all of it."""
        super().reset(seed=seed)
        self.tick, self.frames, self.choice, self.over = 0, 0, None, False
        self.pressed_at = 0  # tick after the last press
        self.cue_end = self.onset = 0
        self._begin(self.np_random)
        self._show()
        return self._observe(), self._info()

    def step(self, action: np.ndarray):
        """One control tick. ValueError for an action that is not seven finite numbers."""
        action = np.asarray(action)
        if action.shape != (7,) or not np.isfinite(action).all():
            raise ValueError(f"expected an action of 7 finite numbers, found {action}; check the policy's output")
        if self.over:
            raise ValueError("expected a running episode, found none; call reset first")
        if self.phase == "choice" or self.free_arm:
            self._act(np.clip(action, -1.0, 1.0))
        self.tick += 1
        self._show()
        late = self.tick - max(self.onset, self.pressed_at) >= self.limit and not self.ended
        self.over = self.ended or late
        return self._observe(), float(self.success), self.ended, late, self._info()

    def render(self) -> np.ndarray:
        """The scene as a person would film it, uint8 (256, 256, 3)."""
        return self.table.picture()

    def close(self) -> None:
        """Free the rendering contexts."""
        self.table.close()

    def _observe(self) -> dict[str, np.ndarray]:
        self.frames += self.images
        shape = (self.table.size, self.table.size, 3)
        pictures = self.table.images() if self.images else {camera: np.zeros(shape, np.uint8) for camera in CAMERAS}
        return {**pictures, "proprio": self.table.pose.astype(np.float32)}

    def _info(self) -> dict[str, Any]:
        return {
            "instruction": self.instruction,
            "tick": self.tick,
            "phase": self.phase,
            "success": self.success,
            "choice": self.choice,
            "answer": self.answer,
            "cue_end": self.cue_end,
            "onset": self.onset,
            "frames": self.frames,
        }


def lay_out(draw: np.random.Generator, colors: Sequence[str], shuffle: bool) -> Places:
    """A place for each cube: cells of a grid of three by three, jittered; the first cells if not `shuffle`."""
    cells = draw.permutation(9)[: len(colors)] if shuffle else np.arange(len(colors))
    jitter = draw.uniform(-JITTER, JITTER, (len(colors), 2))
    spots = [(GRID[cell % 3] + dx, GRID[cell // 3] + dy) for cell, (dx, dy) in zip(cells, jitter, strict=True)]
    return {color: (*spot, scene.CUBE / 2) for color, spot in zip(colors, spots, strict=True)}


def start(draw: np.random.Generator) -> np.ndarray:
    """Where the arm is when an episode begins, float (7,): in the middle, at cruise height, about; its hand closed."""
    height = scene.CRUISE + draw.uniform(-0.01, 0.01)
    return np.array([*draw.uniform(-START, START, 2), height, 0, 0, 0, 0])


def ticks(name: str, value: Ticks, low: int, high: int = MOST_DELAY) -> tuple[int, int]:
    """A number or a pair of them within [low, high], as a half-open range to draw from; ValueError if it is not."""
    pair = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(pair) != 2 or not all(map(_whole, pair)) or not low <= pair[0] <= pair[1] <= high:
        raise ValueError(f"{name}: expected {low} to {high}, or a range (low, high) within, found {value!r}")
    return int(pair[0]), int(pair[1]) + 1


def number(name: str, value: int, low: int, high: int) -> int:
    """A whole number within [low, high]; ValueError if it is not."""
    if not _whole(value) or not low <= value <= high:
        raise ValueError(f"{name}: expected a whole number from {low} to {high}, found {value!r}")
    return int(value)


def flags(**values: bool) -> None:
    """ValueError for a knob that is not true or false: the text "False" would count as true."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name}: expected true or false, found {value!r}")


def pixels(image_size: int) -> int:
    """The side of camera images; ValueError if it is out of range."""
    return number("image_size", image_size, 16, 512)


def _whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
