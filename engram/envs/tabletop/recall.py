"""Family recall: see a cue, wait, choose. The one thing needed to choose is no longer in view when it is needed.

cue      a cube in the colour to remember stands on the stand at the far side, out of the arm's reach
delay    it is gone
choice   one cube of each candidate colour on the table; the first cube touched is the choice and ends the episode

In the `-visible` twins the cue stays on its stand: the same task, for which no memory is needed.
"""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from engram.envs.tabletop import scene
from engram.envs.tabletop.table import CAMERAS, HIGH, LOW, Table

MOST_DELAY = 500
INSTRUCTION = "touch the cube in the colour that was shown"
GRID = (-0.12, 0.0, 0.12)  # centres of the places for cubes along x and y, metres
JITTER = 0.012
START = 0.06  # the fingertip starts within |x|, |y| <= START at about cruise height

Ticks = int | Sequence[int]  # a number, or the ends of a range


class Recall(gymnasium.Env):
    """The environment.

    A knob of another kind or out of range is a ValueError.

    Args:
        colors: number of candidates, 2 to 9, the first of `scene.COLORS`.
        cue_ticks: how long the cue shows, 1 or more; a pair is a range drawn from per episode.
        delay_ticks: how long nothing shows, 0 to 500; likewise.
        shuffle: which colour lies where is drawn per episode, after and independently of the cue. If False, colours
            always lie at the same places.
        visible: the cue stays in view.
        free_arm: actions have an effect during cue and delay too.
        limit: ticks of choice after which the episode is truncated.
        image_size: side of the camera images, pixels.
        images: False leaves the images black and saves drawing them (for experts, which see the state).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": scene.CONTROL_HZ}

    def __init__(
        self,
        colors: int = 3,
        cue_ticks: Ticks = (3, 5),
        delay_ticks: Ticks = (2, 8),
        shuffle: bool = True,
        visible: bool = False,
        free_arm: bool = False,
        limit: int = 40,
        image_size: int = 64,
        images: bool = True,
        render_mode: str | None = "rgb_array",
    ):
        self._cue_ticks = _range("cue_ticks", cue_ticks, 1, MOST_DELAY)
        self._delay_ticks = _range("delay_ticks", delay_ticks, 0, MOST_DELAY)
        _number("colors", colors, 2, len(scene.COLORS))
        _number("limit", limit, 1, 10_000)
        _number("image_size", image_size, 16, 512)
        for name, value in (("shuffle", shuffle), ("visible", visible), ("free_arm", free_arm), ("images", images)):
            _flag(name, value)
        self.colors, self.shuffle, self.visible, self.free_arm = list(scene.COLORS)[:colors], shuffle, visible, free_arm
        self.limit, self.images, self.render_mode = limit, images, render_mode
        self.table = Table(image_size)
        picture = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        low, high = (np.append(bound, end).astype(np.float32) for bound, end in ((LOW - 0.1, -0.1), (HIGH + 0.1, 1.1)))
        pose = spaces.Box(low, high)
        self.observation_space = spaces.Dict({**dict.fromkeys(CAMERAS, picture), "proprio": pose})
        self.action_space = spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.answer: str | None = None
        self.choice: str | None = None
        self.over = True  # until the first reset

    @property
    def phase(self) -> str:
        """What this tick shows: "cue", "delay" or "choice"."""
        return "choice" if self.tick >= self.onset else "cue" if self.tick < self.cue_end else "delay"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Draw an episode; `seed` decides all of it."""
        super().reset(seed=seed)
        draw = self.np_random
        self.answer = self.colors[draw.integers(len(self.colors))]
        self.cue_end = int(draw.integers(*self._cue_ticks))
        self.onset = self.cue_end + int(draw.integers(*self._delay_ticks))
        self.places = self._lay_out(draw)
        height = scene.CRUISE + draw.uniform(-0.01, 0.01)
        self.table.set_pose(np.array([*draw.uniform(-START, START, 2), height, 0, 0, 0, 0]))
        self.tick, self.frames, self.choice, self.over = 0, 0, None, False
        self._show()
        return self._observe(), self._info()

    def step(self, action: np.ndarray):
        """One control tick. ValueError for an action that is not seven finite numbers."""
        action = np.asarray(action)
        if action.shape != (7,) or not np.isfinite(action).all():
            raise ValueError(f"expected an action of 7 finite numbers, found {action}; check the policy's output")
        if self.over:
            raise ValueError("expected a running episode, found none; call reset first")
        choosing = self.phase == "choice"
        if choosing or self.free_arm:
            self.choice = self.table.move(np.clip(action, -1.0, 1.0))
        self.tick += 1
        self._show()
        success = self.choice == self.answer
        ended = self.choice is not None
        late = self.tick - self.onset >= self.limit and not ended
        self.over = ended or late
        return self._observe(), float(success), ended, late, self._info()

    def render(self) -> np.ndarray:
        """The scene as a person would film it, uint8 (256, 256, 3)."""
        return self.table.picture()

    def close(self) -> None:
        """Free the rendering contexts."""
        self.table.close()

    def privileged(self) -> dict[str, Any]:
        """The state that no camera need show: for experts and audits, never for policies."""
        return {"answer": self.answer, "places": self.places, "pose": self.table.pose}

    def _lay_out(self, draw: np.random.Generator) -> dict[str, tuple[float, float, float]]:
        """A place for each candidate: cells of a grid of three by three, jittered."""
        cells = draw.permutation(9)[: len(self.colors)] if self.shuffle else np.arange(len(self.colors))
        jitter = draw.uniform(-JITTER, JITTER, (len(self.colors), 2))
        spots = [(GRID[cell % 3] + dx, GRID[cell // 3] + dy) for cell, (dx, dy) in zip(cells, jitter, strict=True)]
        return {color: (*spot, scene.CUBE / 2) for color, spot in zip(self.colors, spots, strict=True)}

    def _show(self) -> None:
        """Put on the table what this tick's phase shows."""
        phase = self.phase
        cue = self.answer if phase == "cue" or self.visible else None
        self.table.place(self.places if phase == "choice" else {}, cue)

    def _observe(self) -> dict[str, np.ndarray]:
        self.frames += self.images
        shape = (self.table.size, self.table.size, 3)
        pictures = self.table.images() if self.images else {camera: np.zeros(shape, np.uint8) for camera in CAMERAS}
        return {**pictures, "proprio": self.table.pose.astype(np.float32)}

    def _info(self) -> dict[str, Any]:
        return {
            "instruction": INSTRUCTION,
            "tick": self.tick,
            "phase": self.phase,
            "success": self.choice is not None and self.choice == self.answer,
            "choice": self.choice,
            "answer": self.answer,
            "cue_end": self.cue_end,
            "onset": self.onset,
            "frames": self.frames,
        }


def _range(name: str, value: Ticks, low: int, high: int) -> tuple[int, int]:
    """A number or a pair of them within [low, high], as a half-open range to draw from."""
    pair = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(pair) != 2 or not all(map(_whole, pair)) or not low <= pair[0] <= pair[1] <= high:
        raise ValueError(f"{name}: expected {low} to {high}, or a range (low, high) within, found {value!r}")
    return int(pair[0]), int(pair[1]) + 1


def _number(name: str, value: int, low: int, high: int) -> None:
    if not _whole(value) or not low <= value <= high:
        raise ValueError(f"{name}: expected a whole number from {low} to {high}, found {value!r}")


def _whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _flag(name: str, value: object) -> None:
    if not isinstance(value, bool):  # the text "False" would count as true
        raise ValueError(f"{name}: expected true or false, found {value!r}")
