"""Simulated tasks by name, each with a scripted expert: NAME is the tabletop's, mikasa/NAME is MIKASA-Robo-VLA's."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

MIKASA = "mikasa/"


def make(name: str, **knobs: Any) -> gymnasium.Env:
    """The environment of a task, some of its knobs turned.

    Raises ValueError for an unknown task or knob, naming the nearest, and ImportError for a simulator that is not
    installed, with the command that installs it.
    """
    # Here and not above: simulators take seconds to load, and naming a task should not load those of others.
    if name.startswith(MIKASA):
        from engram.envs import mikasa

        return mikasa.make(name.removeprefix(MIKASA), **knobs)
    from engram.envs import mikasa, tabletop

    if name in mikasa.TASKS:
        raise ValueError(f"task: expected {MIKASA}{name} for MIKASA-Robo's, found {name}; write it so")
    return tabletop.make(name, **knobs)


def usual_lanes(name: str, workers: int) -> int:
    """How many episodes to play side by side: one a worker where a simulator takes a gigabyte, else 16."""
    return max(1, workers) if name.startswith(MIKASA) else 16


def pushed_ticks(name: str) -> int:
    """Actions of a demonstration that noise may disturb: the first, after which the hand comes to rest.

    ValueError for an unknown task of the tabletop.
    """
    from engram.envs import mikasa, tabletop

    if name.startswith(MIKASA):
        return 30 if name.removeprefix(MIKASA) in mikasa.PUSHED_LONG else 8
    return tabletop.PUSHED[tabletop.family(name)]


def expert_sha256(name: str) -> str:
    """SHA-256 over the source of what plays a task: demonstrations of another text are of another expert.

    ValueError for an unknown task of the tabletop.
    """
    from engram.envs import tabletop

    theirs = Path(__file__).parent / "mikasa/experts"
    files = sorted(theirs.glob("*.py")) if name.startswith(MIKASA) else tabletop.expert_files(name)
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def expert(name: str) -> Callable[[gymnasium.Env], np.ndarray]:
    """What plays a task: from its environment to an action, float32 (A,). Privileged: it knows the answer.

    ValueError for an unknown task of the tabletop.
    """
    if name.startswith(MIKASA):
        from engram.envs.mikasa.experts import play

        return play
    from engram.envs.tabletop import family
    from engram.envs.tabletop.families import FAMILIES

    return FAMILIES[family(name)].expert
