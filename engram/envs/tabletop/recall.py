"""Family recall: see a cue, wait, choose. The one thing needed to choose is no longer in view when it is needed.

cue      a cube in the colour to remember stands on the stand at the far side, out of the arm's reach
delay    it is gone
choice   one cube of each candidate colour on the table; the first cube touched is the choice and ends the episode

In the `-visible` twins the cue stays on its stand: the same task, for which no memory is needed.
"""

from typing import Any

import numpy as np

from engram.envs.tabletop import scene
from engram.envs.tabletop.table import Table
from engram.envs.tabletop.task import GRID, JITTER, Task, Ticks, flags, lay_out, number, pixels, start, ticks

__all__ = ["GRID", "JITTER", "Recall"]


class Recall(Task):
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

    instruction = "touch the cube in the colour that was shown"

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
        self._cue_ticks = ticks("cue_ticks", cue_ticks, 1)
        self._delay_ticks = ticks("delay_ticks", delay_ticks, 0)
        self.colors = list(scene.COLORS)[: number("colors", colors, 2, len(scene.COLORS))]
        flags(shuffle=shuffle)
        self.shuffle = shuffle
        super().__init__(Table(pixels(image_size)), visible, free_arm, limit, images, render_mode)

    @property
    def answers(self) -> list[str]:
        return self.colors

    @property
    def success(self) -> bool:
        return self.choice is not None and self.choice == self.answer

    @property
    def ended(self) -> bool:
        return self.choice is not None

    def privileged(self) -> dict[str, Any]:
        return {"answer": self.answer, "places": self.places, "pose": self.table.pose}

    def _begin(self, draw: np.random.Generator) -> None:
        self.answer = self.colors[draw.integers(len(self.colors))]
        self.cue_end = int(draw.integers(*self._cue_ticks))
        self.onset = self.cue_end + int(draw.integers(*self._delay_ticks))
        self.places = lay_out(draw, self.colors, self.shuffle)
        self.table.set_pose(start(draw))

    def _act(self, action: np.ndarray) -> None:
        self.choice = self.table.move(action)

    def _show(self) -> None:
        phase = self.phase
        cue = self.answer if phase == "cue" or self.visible else None
        self.table.place(self.places if phase == "choice" else {}, cue)
