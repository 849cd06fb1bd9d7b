"""MIKASA-Robo-VLA, the benchmark of the papers that measure memory: its tasks by name, its groups, its protocol.

What it needs beside Engram is installed by `make mikasa`. Task lists: muVLA, Table 1, as in specs/mu_vla.md 2.1 and
3.1; the canonical five: the MemoryVLA papers.
"""

import importlib.util
import os
from typing import Any

import gymnasium

from engram import provenance
from engram.envs.unknown import unknown

CAMERAS = ("base", "wrist")
FIRST_SEED = 4_242_424_242  # the protocol's: episode i has this seed + i
EPISODES = 100

REMEMBER = tuple(
    f"{kind}{count}"
    for kind, counts in (
        ("RememberColor", ("3", "5", "9")),
        ("RememberShape", ("3", "5", "9")),
        ("RememberShapeAndColor", ("3x2", "3x3", "5x3")),
        ("FindImposterColor", ("3", "5", "9")),
        ("FindImposterShape", ("3", "5", "9")),
        ("FindImposterShapeAndColor", ("3x2", "3x3", "5x3")),
    )
    for count in counts
)
INTERCEPT = tuple(f"{kind}{speed}" for kind in ("Intercept", "InterceptGrab") for speed in ("Slow", "Medium", "Fast"))
ROTATE = tuple(f"Rotate{kind}{sign}" for kind in ("Lenient", "Strict") for sign in ("Pos", "PosNeg"))
KNOBS: dict[str, tuple] = {"strict": (False, True), "images": (False, True), "device": ("cpu", "gpu")}
DEVICE = "ENGRAM_MIKASA_DEVICE"
MUG = "get it with: python -m mani_skill.utils.download_asset ycb"
SHELL = ("ShellGameTouch", "ShellGamePush", "ShellGamePick")
BULB = ("Batteries", "BlinkCount", "GatherAndRecall", "TimedTransfer", "TraceShape")  # tasks that show a light bulb
TASKS = (*REMEMBER, *INTERCEPT, *ROTATE, "TakeItBack", *SHELL)

TRAIN = ("ShellGamePush", "InterceptMedium", "RememberColor5", "TakeItBack", "RememberShapeAndColor3x3")
MATCHED = (
    *("ShellGameTouch", "ShellGamePick", "InterceptSlow", "InterceptFast"),
    *("InterceptGrabSlow", "InterceptGrabMedium", "InterceptGrabFast"),
    *("RememberColor3", "RememberColor9", "RememberShapeAndColor3x2", "RememberShapeAndColor5x3"),
)
NOVEL = ("RememberShape3", "RememberShape5", "RememberShape9", *ROTATE)
GROUPS = {"train": TRAIN, "matched": MATCHED, "novel": NOVEL}
CANONICAL = ("ShellGameTouch", "InterceptMedium", "RememberColor3", "RememberColor5", "RememberColor9")

PUSHED_LONG = ("TakeItBack", "InterceptSlow", "InterceptMedium")
"""Tasks of 60 ticks in whose demonstrations half an episode is disturbed, for which it was tried (dev/LOG.md,
2026-11-28): carrying, too, shows the way back."""


class MissingAssetsError(ImportError):
    """A task needs a file that no package brings; the message names the command that gets it."""


def make(name: str, **knobs: Any) -> gymnasium.Env:
    """The environment of a task (engram/envs/mikasa/task.py names the knobs).

    Raises ValueError for an unknown task, naming the nearest, ImportError when the benchmark is not installed, and
    MissingAssetsError, which is one.
    """
    if name.startswith(BULB) or "ColorLamp" in name:
        raise MissingAssetsError(
            f"mikasa/{name}: assets missing: expected low_poly_light_bulb.glb in the wheel of mikasa-robo-suite 1.0.0, "
            "which came without it; these tasks cannot be played from packages: choose another"
        )
    if name not in TASKS:
        raise ValueError(unknown("MIKASA-Robo task", name, TASKS))
    _require_knobs(name, knobs)
    if not installed():
        raise ImportError(f"mikasa/{name} needs mani-skill and mikasa-robo-suite, which are missing; run: make mikasa")
    # Here and not above: ManiSkill takes seconds to load, and listing the tasks should not.
    from engram.envs.mikasa.task import Task

    return Task(name, **knobs)


def installed() -> bool:
    """Whether `make mikasa` has been run."""
    return all(importlib.util.find_spec(package) is not None for package in ("mikasa_robo_suite", "mani_skill"))


def there(name: str) -> bool:
    """Whether a task's assets are here: the shell game's mug comes with no package."""
    if name not in SHELL:
        return True
    if not installed():
        return False
    from engram.envs.mikasa.task import about_mugs  # here and not above, as in `make`

    return about_mugs().is_file()


def usual_device() -> str:
    """Where ManiSkill simulates and renders unless told otherwise: "cpu" if the environment variable
    ENGRAM_MIKASA_DEVICE says so (for a GPU without a Vulkan driver), else "gpu" if torch finds one, else "cpu"."""
    return "gpu" if os.environ.get(DEVICE) != "cpu" and _gpu() else "cpu"


def simulated(device: str | None = None) -> str:
    """How tasks are simulated here, for tables: "simulated and drawn on a CPU by mani-skill 3.0.1 and sapien 3.0.3"."""
    versions = provenance.versions()
    by = f"mani-skill {versions['mani-skill']} and sapien {versions['sapien']}"
    return f"simulated and drawn on a {(device or usual_device()).upper()} by {by}"


def _gpu() -> bool:
    import torch  # here and not above: naming a task should not load it

    return torch.cuda.is_available()


def _require_knobs(name: str, knobs: dict[str, Any]) -> None:
    """ValueError for a setting that tasks do not have, or a value that it cannot have."""
    for knob, value in knobs.items():
        if knob not in KNOBS:
            raise ValueError(unknown(f"setting of mikasa/{name}", knob, KNOBS))
        if value not in KNOBS[knob] or isinstance(value, bool) != isinstance(KNOBS[knob][0], bool):
            raise ValueError(f"{knob}: expected one of {', '.join(map(str, KNOBS[knob]))}, found {value!r}; choose one")
    if knobs.get("device") == "gpu" and not _gpu():
        raise ValueError(f"device of mikasa/{name}: expected a GPU that torch sees, found none; leave device out")
