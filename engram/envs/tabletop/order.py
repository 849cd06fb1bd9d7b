"""Family order: press buttons in the order in which their colours were shown. Pressed and unpressed look alike.

cue      the cube on the stand shows the colours one after another, with a gap between in which nothing shows
delay    nothing shows
choice   a button of each of these colours lies on the table: a wrong one ends the episode, and so does the last

In the `-visible` twins cubes along the far side show, from left to right, what is left to press.
"""

from itertools import permutations
from typing import Any

import numpy as np

from engram.envs.tabletop import scene
from engram.envs.tabletop.presses import Presses
from engram.envs.tabletop.table import Table
from engram.envs.tabletop.task import Task, Ticks, flags, lay_out, number, pixels, start, ticks


class Order(Task):
    """The environment.

    A knob of another kind or out of range is a ValueError.

    Args:
        buttons: how many, 2 to 5, in the first of `scene.COLORS`.
        cue_ticks: how long each colour shows, 1 or more; a pair is a range drawn from per episode.
        gap_ticks: how long nothing shows between two colours, 0 to 500; likewise.
        delay_ticks: how long nothing shows after the last, 0 to 500; likewise.
        shuffle: which button lies where is drawn per episode, after and independently of the order. If False, buttons
            always lie at the same places.
        visible: what is left to press is in view.
        free_arm: actions have an effect during cue and delay too.
        limit: ticks of choice without a press after which the episode is truncated.
        image_size: side of the camera images, pixels.
        images: False leaves the images black and saves drawing them (for experts, which see the state).
    """

    instruction = "press all buttons one after another following the sequence of the light"

    def __init__(
        self,
        buttons: int = 3,
        cue_ticks: Ticks = (2, 4),
        gap_ticks: Ticks = (1, 2),
        delay_ticks: Ticks = (2, 8),
        shuffle: bool = True,
        visible: bool = False,
        free_arm: bool = False,
        limit: int = 40,
        image_size: int = 64,
        images: bool = True,
        render_mode: str | None = "rgb_array",
    ):
        self.colors = list(scene.COLORS)[: number("buttons", buttons, 2, 5)]
        self._cue_ticks = ticks("cue_ticks", cue_ticks, 1)
        self._gap_ticks = ticks("gap_ticks", gap_ticks, 0)
        self._delay_ticks = ticks("delay_ticks", delay_ticks, 0)
        flags(shuffle=shuffle)
        self.shuffle = shuffle
        super().__init__(Table(pixels(image_size), row=buttons), visible, free_arm, limit, images, render_mode)

    @property
    def answers(self) -> list[str]:
        return ["-".join(order) for order in permutations(self.colors)]

    @property
    def success(self) -> bool:
        return self.pressed == self.order

    @property
    def ended(self) -> bool:
        return self.success or self.pressed != self.order[: len(self.pressed)]

    def privileged(self) -> dict[str, Any]:
        """`clear` says whether the hand has risen since the last press, `pressed` what has been pressed so far."""
        known = {"answer": self.answer, "places": self.places, "pose": self.table.pose}
        return {**known, "pressed": list(self.pressed), "clear": self._presses.clear}

    def _begin(self, draw: np.random.Generator) -> None:
        self.order = [self.colors[i] for i in draw.permutation(len(self.colors))]
        self.answer, self._presses = "-".join(self.order), Presses()
        self.pressed: list[str] = []
        self._shown, self._gap = int(draw.integers(*self._cue_ticks)), int(draw.integers(*self._gap_ticks))
        self.cue_end = len(self.order) * (self._shown + self._gap) - self._gap
        self.onset = self.cue_end + int(draw.integers(*self._delay_ticks))
        self.places = lay_out(draw, self.colors, self.shuffle)
        self.table.set_pose(start(draw))

    def _act(self, action: np.ndarray) -> None:
        color = self._presses.move(self.table, action)
        if color is not None:
            self.pressed = [*self.pressed, color]
            self.choice, self.pressed_at = "-".join(self.pressed), self.tick + 1

    def _show(self) -> None:
        left = [None if i < len(self.pressed) else color for i, color in enumerate(self.order)]
        buttons = self.places if self.phase == "choice" else {}
        self.table.place(buttons, self._lit(), row=left if self.visible else ())

    def _lit(self) -> str | None:
        """The colour on the stand."""
        turn, tick = divmod(self.tick, self._shown + self._gap)
        return self.order[turn] if self.tick < self.cue_end and tick < self._shown else None
