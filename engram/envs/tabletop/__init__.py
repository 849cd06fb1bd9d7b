"""The embedded default: a MuJoCo table with an arm, two cameras and tasks whose answer is no longer in view."""

import inspect
from typing import Any

import gymnasium

from engram.envs.unknown import unknown

CAMERAS = ("base", "wrist")
TASKS: dict[str, dict[str, Any]] = {
    f"recall-color-{colors}{suffix}": {"colors": colors, "visible": bool(suffix)}
    for colors in (3, 5, 9)
    for suffix in ("", "-visible")
}


def make(name: str, **knobs: Any) -> gymnasium.Env:
    """The environment of a task, with some of its knobs turned (engram/envs/tabletop/recall.py names them).

    Raises ValueError for an unknown task or knob, naming the known ones, and for a knob out of range.
    """
    # Here and not above: MuJoCo takes a second to load, and listing the tasks should not.
    from engram.envs.tabletop.recall import Recall

    if name not in TASKS:
        raise ValueError(unknown("environment", name, TASKS))
    known = inspect.signature(Recall).parameters
    for knob in knobs:
        if knob not in known:
            raise ValueError(unknown(f"knob of {name}", knob, known))
    return Recall(**{**TASKS[name], **knobs})
