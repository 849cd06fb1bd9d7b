"""Lessons about one scene, for recipes/pretrain_notes.py: what is told or shown first, what later, what is asked then.

Legend: C cameras, N objects, T vision tokens.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from mikasa_scenes import COLORS, SCALE, SIDES, TOKENS, Scenes, at, babble, name, tokens_of, touching
from torch import Tensor


class Lesson(NamedTuple):
    """What one frame is about.

    told     text of the first step
    later    text of all others
    goal     way from the hand (3, units of SCALE) to what is to be touched, or to what was noted
    about    told, like or recalled: what the goal is
    kind     what was noted: colour, shape (-1: no matter)
    shown    bool (2, T): vision tokens that are not covered in the first step, and later
    """

    told: str
    later: str
    goal: np.ndarray
    about: str
    kind: tuple[int, int]
    shown: np.ndarray


class Batch(NamedTuple):
    """Lessons side by side, as arrays or as tensors on one device."""

    told: tuple[str, ...]
    later: tuple[str, ...]
    goal: Any
    about: np.ndarray
    kind: Any
    shown: Any

    def to(self, device: torch.device) -> "Batch":
        """As tensors there."""
        goal, kind, shown = (torch.from_numpy(part).to(device) for part in (self.goal, self.kind, self.shown))
        return self._replace(goal=goal, kind=kind, shown=shown)

    def are(self, about: str) -> Tensor:
        """Which lessons are about that."""
        return torch.from_numpy(self.about == about).to(self.goal.device)


def lesson(
    rng: np.random.Generator, kinds: np.ndarray, places: np.ndarray, hand: np.ndarray, cells: np.ndarray
) -> Lesson:
    """A lesson about one scene; `cells` (C, N) are the tokens that show each object, -1 for none."""
    colours, ways = kinds % len(COLORS), (places - hand) / SCALE
    draw, later, everything = rng.random(), babble(rng), np.ones((2, TOKENS), bool)
    if draw < 0.2 and (once := alone(colours)):
        i = rng.choice(once)
        return Lesson(telling(rng, COLORS[colours[i]]), later, ways[i], "told", (colours[i], -1), everything)
    if draw < 0.4 and (once := alone(kinds)):
        i = rng.choice(once)
        told = touching(rng, kinds, i) if rng.random() < 0.5 else telling(rng, name(kinds[i]))
        return Lesson(told, later, ways[i], "told", split_kind(kinds[i]), everything)
    if draw < 0.85 and (pairs := alike(kinds, cells)):
        i, other = pairs[rng.integers(len(pairs))]
        return Lesson(later, babble(rng), ways[other], "like", split_kind(kinds[i]), covered(cells, i))
    side = rng.choice([*SIDES, "gripper", "gripper", "gripper", "gripper"])
    i = at(side, places) if side in SIDES else int(np.linalg.norm(places - hand, axis=1).argmin())
    told = later if side == "gripper" and rng.random() < 0.8 else f"what is the {side} object"
    return Lesson(told, later, ways[i], "recalled", split_kind(kinds[i]), everything)


def alone(values: np.ndarray) -> list[int]:
    """Which objects are the only ones with their value."""
    return [i for i, value in enumerate(values) if (values == value).sum() == 1]


def alike(kinds: np.ndarray, cells: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of an object and the only other like it (of its kind or, if there is none, of its colour), of which the one
    can be seen with all others covered, and the other with the one covered."""
    colours, other = kinds % len(COLORS), ~np.eye(len(kinds), dtype=bool)
    same, near = ((values[:, None] == values) & other for values in (kinds, colours))
    like = np.where(same.any(1, keepdims=True), same, near)
    pairs = [(int(i), int(like[i].argmax())) for i in np.flatnonzero(like.sum(1) == 1)]
    return [(i, j) for i, j in pairs if in_view(cells, i, np.delete(cells, i, 1)) and in_view(cells, j, cells[:, [i]])]


def in_view(cells: np.ndarray, i: int, hidden: np.ndarray) -> bool:
    """Whether a camera shows an object in a token that is not among the hidden ones (C, any number)."""
    return bool(((cells[:, i] >= 0) & (hidden != cells[:, [i]]).all(1)).any())


def covered(cells: np.ndarray, i: int) -> np.ndarray:
    """Tokens that are shown, (2, T): at first all but those with other objects, later all but those with this one."""
    shown = np.ones((2, TOKENS), bool)
    others, mine = np.delete(cells, i, 1), cells[:, i]
    shown[0, others[others >= 0]] = False
    shown[1, mine[mine >= 0]] = False
    return shown


def split_kind(kind: int) -> tuple[int, int]:
    """Colour and shape of a kind."""
    return int(kind) % len(COLORS), int(kind) // len(COLORS)


def telling(rng: np.random.Generator, what: str) -> str:
    """One of several ways to name it."""
    ways = ("the {} one", "remember the {}", "touch the {}", "{}", "look at the {} and wait")
    return str(rng.choice(ways)).format(what)


def lessons_of(part: Scenes, rng: np.random.Generator) -> Batch:
    """A lesson about each of some scenes (arrays)."""
    cells, drawn = tokens_of(part.pixels), []
    for kinds, places, proprio, shown in zip(part.kinds, part.positions, part.proprio, cells, strict=True):
        there = kinds >= 0
        drawn.append(lesson(rng, kinds[there], places[there], proprio[:3], shown[:, there]))
    told, later, goal, about, kind, shown = zip(*drawn, strict=True)
    return Batch(told, later, np.array(goal, np.float32), np.array(about), np.array(kind), np.array(shown))
