"""Family conveyor: a cube rides along a belt and through a tunnel; grasp it behind the tunnel and lift it.

cue      the cube is in view before the tunnel, on the near or the far half of the belt, at a speed drawn per episode
delay    it is out of view, and it is too early to set out
choice   it is time to set out: what comes out of the tunnel is soon off the belt

All the while actions have an effect. A hand that waits where it started and reacts to what reappears comes too late at
medium and fast speed; what is slow it still catches. The `-visible` twins have no tunnel.

A grasp is kinematic: where the fingers close on the cube it is held, and moves with the hand from then on. Touched in
another way it is knocked off its course, which ends the episode, as does letting it go or its leaving the belt.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engram.envs.tabletop import scene
from engram.envs.tabletop.table import Table
from engram.envs.tabletop.task import Task, pixels

FROM = (-0.21, -0.19)  # where the cube's centre starts along x, metres
LANES = (0.08, 0.13)  # its distance from the middle of the belt, which is y = 0
SETS_OUT = 8  # ticks before it can be grasped at which the hand has to set out
START = ((-0.11, -0.02, 0.19), (-0.07, 0.02, 0.21))  # where the fingertip starts, low and high corner
BESIDE = 0.02  # metres: a cube this far off the fingertip, along x or y, is between the fingers
DEEP = 0.042  # height of the fingertip up to which the fingers reach far enough down beside the cube
GRIP = 0.75  # opening at which the fingers are as far apart as the cube is wide, and a little
LET_GO = 0.9  # wanted opening at which a held cube falls
LIFTED = 0.03  # metres
ASIDE = 0.04  # a hand this far from the middle of the belt is in the near or the far half
LEAD = 5  # substeps by which the arm's servos lag
COLORS = ("red", "green", "blue", "yellow", "magenta")


class Conveyor(Task):
    """The environment.

    A knob of another kind or out of range is a ValueError.

    Args:
        speed: the range, metres a second, of which the cube's speed is drawn; within 0.1 to 0.7.
        visible: there is no tunnel.
        limit: ticks of choice after which the episode is truncated.
        image_size: side of the camera images, pixels.
        images: False leaves the images black and saves drawing them (for experts, which see the state).
    """

    instruction = "catch the moving block behind the tunnel and lift it up"

    def __init__(
        self,
        speed: Sequence[float] = (0.40, 0.50),
        visible: bool = False,
        limit: int = 40,
        image_size: int = 64,
        images: bool = True,
        render_mode: str | None = "rgb_array",
    ):
        self._speed = _speeds(speed)
        table = Table(pixels(image_size), extra=scene.conveyor(tunnel=not visible))
        super().__init__(table, visible, True, limit, images, render_mode)

    @property
    def answers(self) -> list[str]:
        return ["near", "far"]

    @property
    def success(self) -> bool:
        return self.held is not None and not self.lost and bool(self.cube[2] >= scene.CUBE / 2 + LIFTED)

    @property
    def ended(self) -> bool:
        return self.success or self.lost

    def privileged(self) -> dict[str, Any]:
        """`cube` is its centre, float (3,), `speed` metres a tick; `due` tells whether it is time to set out."""
        known = {"answer": self.answer, "pose": self.table.pose, "cube": self.cube.copy(), "speed": self.speed}
        return {**known, "held": self.held is not None, "due": self.due}

    @property
    def due(self) -> bool:
        """Whether it is time to set out."""
        return bool(self.cube[0] >= scene.MEET - SETS_OUT * self.speed)

    def _begin(self, draw: np.random.Generator) -> None:
        side = int(draw.integers(2))
        self.answer = self.answers[side]
        self.color = COLORS[draw.integers(len(COLORS))]
        self.speed = float(draw.uniform(*self._speed)) / scene.CONTROL_HZ
        lane = float(draw.uniform(*LANES)) * (2 * side - 1)
        self.cube = np.array([draw.uniform(*FROM), lane, scene.CUBE / 2])
        self.held: np.ndarray | None = None  # where the cube is, seen from the fingertip
        self.lost = False  # knocked, let go or off the belt
        self.cue_end = self._tick_at(scene.TUNNEL[0] + scene.CUBE / 2)
        self.onset = max(self.cue_end, self._tick_at(scene.MEET - SETS_OUT * self.speed))
        self.table.set_pose(np.array([*draw.uniform(*START), 0, 0, 0, 1]))

    def _tick_at(self, x: float) -> int:
        """The first tick at which the cube is as far as `x`."""
        return max(1, int(np.ceil((x - self.cube[0]) / self.speed)))

    def _act(self, action: np.ndarray) -> None:
        wanted = (action[6] + 1) / 2
        if self.held is not None:
            self.lost = bool(wanted >= LET_GO)
            action = np.append(action[:6], max(action[6], 2 * GRIP - 1))
        begin, end = self.table.pose, self.table.target(action)
        for substep in range(scene.SUBSTEPS):
            # As evenly as the belt: a hand that is there at once would run into what it keeps pace with.
            self.table.steer(begin + (end - begin) * min(1.0, (substep + LEAD) / scene.SUBSTEPS))
            touched = self.table.substep() is not None
            self._ride()
            if self.held is None and wanted < GRIP and self._between() and (touched or self.table.pose[6] < GRIP):
                self._hold()
            elif touched and self.held is None:
                self.lost = True
                break
        self.table.settle()
        self.lost = self.lost or bool(self.held is None and self.cube[0] > scene.BELT_END)
        if self.ended:
            self.choice = self._side()

    def _ride(self) -> None:
        """One substep of the cube's: along the belt, or with the hand."""
        if self.held is None:
            self.cube[0] += self.speed / scene.SUBSTEPS
            self.table.put(self.color, self.cube)
        else:
            self.cube = self.table.pose[:3] + self.held

    def _between(self) -> bool:
        """Whether the cube is between the fingers, which reach down beside it, and past where the tunnel ends."""
        off = np.abs(self.cube - self.table.pose[:3])
        return bool(off[:2].max() <= BESIDE and self.table.pose[2] <= DEEP and self.cube[0] > scene.TUNNEL[1])

    def _hold(self) -> None:
        """The fingers shift it to their middle; what is held is not touched anew."""
        self.held = (self.cube - self.table.pose[:3]) * (0, 1, 1)
        self.table.put(self.color, scene.HIDDEN)

    def _side(self) -> str | None:
        """The half of the belt that the hand has gone for."""
        y = self.table.pose[1]
        return None if abs(y) < ASIDE else self.answers[int(y > 0)]

    def _show(self) -> None:
        if self.held is None:
            self.table.place({self.color: self.cube})
        else:
            self.table.place({}, self.color, self.cube)  # the cube that nothing touches


def _speeds(value: Sequence[float]) -> tuple[float, float]:
    """A pair of numbers in order within 0.1 to 0.7; ValueError if it is not."""
    pair = tuple(value) if isinstance(value, Sequence) else ()
    numbers = [end for end in pair if isinstance(end, (int, float)) and not isinstance(end, bool)]
    if len(pair) != 2 or len(numbers) != 2 or not 0.1 <= pair[0] <= pair[1] <= 0.7:
        raise ValueError(f"speed: expected a range (low, high) within 0.1 to 0.7, metres a second, found {value!r}")
    return float(pair[0]), float(pair[1])
