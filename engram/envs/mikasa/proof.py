"""Proof that the benchmark runs and renders here: one episode of its expert, with a picture of what the robot saw.

python -m engram.envs.mikasa.proof [cpu]
"""

import sys
import time
from pathlib import Path

import matplotlib.image
import numpy as np

from engram.envs import expert, mikasa

TASK = "RememberColor3"
MISSING = 3  # exit status: a renderer or a library of the system is missing


def prove(picture: Path, device: str) -> str:
    """Play the protocol's first episode and keep its first and last frames; says how it went and how long it took."""
    with mikasa.make(TASK, device=device) as env:
        play = expert(f"mikasa/{TASK}")
        frame, info = env.reset(seed=mikasa.FIRST_SEED)
        first, began, over = frame, time.perf_counter(), False
        while not over:
            frame, _, terminated, truncated, info = env.step(play(env))
            over = terminated or truncated
        ms = 1000 * (time.perf_counter() - began) / info["tick"]
    picture.parent.mkdir(parents=True, exist_ok=True)
    rows = [np.concatenate([shown[camera] for shown in (first, frame)], 1) for camera in mikasa.CAMERAS]
    matplotlib.image.imsave(picture, np.concatenate(rows))
    if len(np.unique(first["base"])) < 8:
        raise RuntimeError(
            f"expected a rendered scene, found {len(np.unique(first['base']))} grey levels; see {picture}"
        )
    mugs = [name for name in mikasa.SHELL if not mikasa.there(name)]
    outcome = "solved" if info["success"] else "not solved"
    return (
        f"{TASK}: {outcome} in {info['tick']} ticks, {ms:.0f} ms a tick with two cameras of 128 pixels; see {picture}"
        + (f"\nassets missing for {', '.join(mugs)}: {mikasa.MUG}" if mugs else "")
    )


if __name__ == "__main__":
    try:
        print(prove(Path("runs/mikasa/proof.png"), "cpu" if "cpu" in sys.argv[1:] else mikasa.usual_device()))
    except ModuleNotFoundError:
        raise
    except ImportError as error:  # no renderer, or a shared library that a package needs
        print(error, file=sys.stderr)
        sys.exit(MISSING)
