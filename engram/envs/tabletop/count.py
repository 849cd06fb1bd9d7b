"""Family count: press the red button as often as the light flashed, then the white one. Pressed, it looks as before.

cue      a red cube shows on the stand k times, with gaps between in which nothing shows. It lasts as long as the
         largest number would take, whatever k: the time does not tell it
delay    nothing shows
choice   a red and a white button lie on the table: one press too many, or white too early, ends the episode, and so
         does white in time

In the `-visible` twins as many cubes as presses are left stand along the far side.
"""

from typing import Any

import numpy as np

from engram.envs.tabletop.presses import Presses
from engram.envs.tabletop.table import Table
from engram.envs.tabletop.task import Task, Ticks, flags, lay_out, number, pixels, start, ticks

BUTTON, DONE = "red", "white"


class Count(Task):
    """The environment.

    A knob of another kind or out of range is a ValueError.

    Args:
        most: the largest number of flashes, 2 to 6; from 1 on all are as likely.
        cue_ticks: how long each flash takes, 1 or more; a pair is a range drawn from per episode.
        gap_ticks: how long nothing shows between two flashes, 1 to 500; likewise.
        delay_ticks: how long nothing shows after the last, 0 to 500; likewise.
        shuffle: where the two buttons lie is drawn per episode, after and independently of the number. If False, they
            always lie at the same places.
        visible: how many presses are left is in view.
        free_arm: actions have an effect during cue and delay too.
        limit: ticks of choice without a press after which the episode is truncated.
        image_size: side of the camera images, pixels.
        images: False leaves the images black and saves drawing them (for experts, which see the state).
    """

    instruction = "push the red key as many times as it flashed then finish with white"

    def __init__(
        self,
        most: int = 3,
        cue_ticks: Ticks = (2, 4),
        gap_ticks: Ticks = (1, 3),
        delay_ticks: Ticks = (2, 8),
        shuffle: bool = True,
        visible: bool = False,
        free_arm: bool = False,
        limit: int = 40,
        image_size: int = 64,
        images: bool = True,
        render_mode: str | None = "rgb_array",
    ):
        self.most = number("most", most, 2, 6)
        self._cue_ticks = ticks("cue_ticks", cue_ticks, 1)
        self._gap_ticks = ticks("gap_ticks", gap_ticks, 1)
        self._delay_ticks = ticks("delay_ticks", delay_ticks, 0)
        flags(shuffle=shuffle)
        self.shuffle = shuffle
        super().__init__(Table(pixels(image_size), row=most), visible, free_arm, limit, images, render_mode)

    @property
    def answers(self) -> list[str]:
        return [str(times) for times in range(1, self.most + 1)]

    @property
    def success(self) -> bool:
        return self.choice is not None and self.choice == self.answer

    @property
    def ended(self) -> bool:
        return self.choice is not None

    def privileged(self) -> dict[str, Any]:
        """`clear` says whether the hand has risen since the last press, `presses` how often red was pressed."""
        known = {"answer": self.answer, "places": self.places, "pose": self.table.pose}
        return {**known, "presses": self.presses, "clear": self._presses.clear}

    def _begin(self, draw: np.random.Generator) -> None:
        self._shown, self._gap = int(draw.integers(*self._cue_ticks)), int(draw.integers(*self._gap_ticks))
        self.times = int(draw.integers(1, self.most + 1))
        self.answer, self.presses, self._presses = str(self.times), 0, Presses()
        self.cue_end = self.most * (self._shown + self._gap) - self._gap
        self.onset = self.cue_end + int(draw.integers(*self._delay_ticks))
        self.places = lay_out(draw, (BUTTON, DONE), self.shuffle)
        self.table.set_pose(start(draw))

    def _act(self, action: np.ndarray) -> None:
        color = self._presses.move(self.table, action)
        if color is None:
            return
        self.presses, self.pressed_at = self.presses + (color == BUTTON), self.tick + 1
        if color == DONE or self.presses > self.times:
            self.choice = str(self.presses)

    def _show(self) -> None:
        left = [BUTTON if i < self.times - self.presses else None for i in range(self.most)]
        buttons = self.places if self.phase == "choice" else {}
        self.table.place(buttons, self._lit(), row=left if self.visible else ())

    def _lit(self) -> str | None:
        """The colour on the stand."""
        turn, tick = divmod(self.tick, self._shown + self._gap)
        return BUTTON if turn < self.times and tick < self._shown else None
