"""Proof that the benchmark runs and renders here: one episode of its expert, with a picture of what the robot saw.

python -m engram.envs.mikasa.proof
"""

import argparse
import time
from pathlib import Path

import matplotlib.image
import numpy as np

from engram.envs import mikasa
from engram.envs.mikasa.experts import play

TASK = "RememberColor3"


def prove(picture: Path) -> str:
    """Play the protocol's first episode and keep its first and last frames; says how it went and how long it took."""
    with mikasa.make(TASK) as env:
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
    mugs = [name for name in mikasa.SHELL if not _there(name)]
    outcome = "solved" if info["success"] else "not solved"
    return (
        f"{TASK}: {outcome} in {info['tick']} ticks, {ms:.0f} ms a tick with two cameras of 128 pixels; see {picture}"
        + (f"\nassets missing for {', '.join(mugs)}: {mikasa.MUG}" if mugs else "")
    )


def _there(name: str) -> bool:
    """Whether a task has all its assets."""
    try:
        mikasa.make(name, images=False).close()
    except mikasa.MissingAssetsError:
        return False
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quiet", action="store_true", help="say nothing; the exit status tells")
    quiet = parser.parse_args().quiet
    said = prove(Path("runs/mikasa/proof.png"))
    if not quiet:
        print(said)
