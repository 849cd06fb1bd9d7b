"""Single frames of random tabletop scenes with their labels, for pretraining vision. Never a sequence, cue or delay.

Cubes lie anywhere on the table (one may stand on the stand: it is a place like others), the arm is anywhere in its
workspace, often near a cube, as it is when it matters. In some scenes one cube has a twin, another cube of its
colour, so that cubes can be compared; a twin lies on the table, within the arm's reach or not, never on the stand.
"""

import numpy as np

from engram.envs.tabletop import scene
from engram.envs.tabletop.table import HIGH, LOW, ON_STAND, Table

NAMES = list(scene.COLORS)
EDGE, APART = 0.165, 0.06  # metres: cubes lie within |x|, |y| <= EDGE, their centres APART in x or y
FAR = ((-0.19, -EDGE), (0.19, 0.30))  # metres: where a twin may lie, low and high corner


def scenes(seed: int, count: int, image_size: int = 64) -> dict[str, np.ndarray]:
    """`count` independent scenes: a pure function of its arguments.

    base, wrist  uint8 (count, S, S, 3)
    proprio      float32 (count, 7)      the pose of the fingertip
    positions    float32 (count, 9, 3)   centre of the cube of each of `NAMES`, metres; NaN where there is none
    twin         float32 (count, 3)      centre of a second cube of one of these colours; NaN if there is none
    twin_color   int64 (count,)          which of `NAMES` has it; -1 if none
    """
    table, rng = Table(image_size), np.random.default_rng(seed)
    drawn = [_scene(table, rng) for _ in range(count)]
    table.close()
    return {key: np.stack([one[key] for one in drawn]) for key in drawn[0]}


def _scene(table: Table, rng: np.random.Generator) -> dict[str, np.ndarray]:
    positions = np.full((len(NAMES), 3), np.nan, np.float32)
    colors = rng.permutation(len(NAMES))
    spots = _spots(rng, int(rng.integers(1, 10)))
    for color, spot in zip(colors, spots, strict=False):
        positions[color] = (*spot, scene.CUBE / 2)
    kind = rng.random()
    stands, extra, at = None, None, ON_STAND
    twin, twin_color = np.full(3, np.nan, np.float32), -1
    if kind < 0.3:
        stands = extra = rng.integers(len(NAMES))
        positions[stands] = ON_STAND
    elif kind < 0.75 and len(spots) > 1:
        twin_color = extra = rng.choice(np.flatnonzero(~np.isnan(positions[:, 0])))
        twin[:] = at = _apart(rng, spots)
    there = np.flatnonzero(~np.isnan(positions[:, 0]))
    table.place(
        {NAMES[color]: positions[color] for color in there if color != stands},
        None if extra is None else NAMES[extra],
        at,
    )
    table.set_pose(_pose(rng, positions[rng.choice(there)]))
    labels = {"positions": positions, "twin": twin, "twin_color": np.int64(twin_color)}
    return {**table.images(), "proprio": table.pose.astype(np.float32), **labels}


def _apart(rng: np.random.Generator, spots: list[np.ndarray]) -> tuple[float, float, float]:
    """A place on the table for one more cube, clear of the others and of the stand."""
    while True:
        spot = rng.uniform(*FAR)
        clear = np.abs(spot - scene.STAND).max() > scene.CUBE + 0.02
        if clear and all(np.abs(spot - other).max() > APART for other in spots):
            return (*spot, scene.CUBE / 2)


def _spots(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Up to `count` places that do not overlap."""
    spots: list[np.ndarray] = []
    for _ in range(60):
        spot = rng.uniform(-EDGE, EDGE, 2)
        if len(spots) < count and all(np.abs(spot - other).max() > APART for other in spots):
            spots.append(spot)
    return spots


def _pose(rng: np.random.Generator, cube: np.ndarray) -> np.ndarray:
    """Anywhere, or (more often) in the funnel above a cube; seldom tilted, sometimes with an open hand."""
    pose = rng.uniform(LOW, HIGH)
    pose[3:6] *= rng.random() < 0.2
    if rng.random() < 0.65:
        offset = rng.normal(0, 0.06, 2) * rng.random()
        height = 0.055 + 1.2 * np.linalg.norm(offset) + rng.normal(0, 0.012)
        pose[:3] = np.clip([*(cube[:2] + offset), height], LOW[:3], HIGH[:3])
    return np.append(pose, rng.random() * (rng.random() < 0.3))
