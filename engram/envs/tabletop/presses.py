"""When a touch of a button is a press: it comes from above, and the hand has risen clear since the press before."""

import numpy as np

from engram.envs.tabletop import scene
from engram.envs.tabletop.table import Table

CLEAR = scene.CUBE + 0.02  # height of the fingertip from which on the next touch counts, metres


class Presses:
    """The presses of one episode. Buttons are rigid cubes: a pressed one looks and lies as before."""

    def __init__(self) -> None:
        self.clear = True  # whether the next touch counts

    def move(self, table: Table, action: np.ndarray) -> str | None:
        """One control tick as of `Table.move`; the colour of the button pressed, None if none was."""
        resting, above, clear = table.touching(), table.pose[2] > scene.CUBE, self.clear
        touched = table.move(action, leaving=resting)
        # A touch from the side presses nothing, but the hand must rise after it too: else it could slide up onto the
        # button, in contact all the time, and no press would ever begin.
        self.clear = touched is None and (clear or table.pose[2] >= CLEAR)
        return touched if clear and above and touched != resting else None
