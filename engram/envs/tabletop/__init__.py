"""The embedded default: a MuJoCo table with an arm, two cameras and tasks whose answer is no longer in view."""

import inspect
from pathlib import Path
from typing import Any

import gymnasium

from engram.envs.unknown import unknown

CAMERAS = ("base", "wrist")
SPEEDS = {"slow": (0.16, 0.24), "medium": (0.40, 0.50), "fast": (0.58, 0.68)}  # of the conveyor, metres a second
HIDDEN: dict[str, dict[str, Any]] = {
    **{f"recall-color-{colors}": {"colors": colors} for colors in (3, 5, 9)},
    **{f"order-{buttons}": {"buttons": buttons} for buttons in (2, 3, 4)},
    **{f"count-{most}": {"most": most} for most in (2, 3, 4, 5)},
    **{f"conveyor-{name}": {"speed": speed} for name, speed in SPEEDS.items()},
}
TASKS: dict[str, dict[str, Any]] = {
    f"{name}{suffix}": {**knobs, "visible": bool(suffix)}
    for name, knobs in HIDDEN.items()
    for suffix in ("", "-visible")
}
# Family -> the files that its expert consists of, and how many actions of a demonstration noise may disturb. Presses
# leave time to recover, and one push alone would show only the way to the first; what rides past does not wait.
EXPERTS = {
    "recall": ("expert.py",),
    "order": ("expert_press.py", "expert.py"),
    "count": ("expert_press.py", "expert.py"),
    "conveyor": ("expert_conveyor.py",),
}
PUSHED = {"recall": 8, "order": 24, "count": 24, "conveyor": 8}


def make(name: str, **knobs: Any) -> gymnasium.Env:
    """The environment of a task, with some of its knobs turned (recall.py, order.py, count.py, conveyor.py name them).

    Raises ValueError for an unknown task or knob, naming the known ones, and for a knob out of range.
    """
    # Here and not above: MuJoCo takes a second to load, and listing the tasks should not.
    from engram.envs.tabletop.families import FAMILIES

    env = FAMILIES[family(name)].env
    known = inspect.signature(env).parameters
    for knob in knobs:
        if knob not in known:
            raise ValueError(unknown(f"knob of {name}", knob, known))
    return env(**{**TASKS[name], **knobs})


def family(name: str) -> str:
    """The family of a task: "recall", "order", "count" or "conveyor"; ValueError for an unknown task."""
    if name not in TASKS:
        raise ValueError(unknown("environment", name, TASKS))
    return name.split("-")[0]


def expert_files(name: str) -> list[Path]:
    """The files that a task's expert consists of."""
    return [Path(__file__).with_name(file) for file in EXPERTS[family(name)]]
