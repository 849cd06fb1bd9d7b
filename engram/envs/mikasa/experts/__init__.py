"""Scripted, privileged experts for MIKASA-Robo-VLA: one module a task family, each with `action(env)`."""

from typing import Any

import gymnasium
import numpy as np

from engram.envs.mikasa.experts import grab, intercept, rotate, shell, take_it_back, touch

FAMILIES = {  # by how the names of their tasks begin; the first that fits
    "Remember": touch,
    "FindImposter": touch,
    "InterceptGrab": grab,
    "Intercept": intercept,
    "Rotate": rotate,
    "TakeItBack": take_it_back,
    "ShellGame": shell,
}


def play(env: gymnasium.Env) -> np.ndarray:
    """The action, float32 (7,), of the expert of a `Task`. ValueError for a task that has none."""
    task: Any = env.unwrapped
    for beginning, family in FAMILIES.items():
        if task.name.startswith(beginning):
            return family.action(task.sim)
    raise ValueError(
        f"expert: expected a task of {', '.join(FAMILIES)}, found {task.name}; record demonstrations of it"
    )
