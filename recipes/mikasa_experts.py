"""How often the scripted experts of MIKASA-Robo succeed: 100 episodes of each task, with and without the noise of
demonstrations, on seeds that nobody looked at while writing them. Needs `make mikasa`; nothing is rendered. The shell
game is played where its mug is; the notes say which, since a stand-in can be had (`python tests/mug.py DIR` and
MS_ASSET_DIR=DIR).

    python recipes/mikasa_experts.py        # resumes from runs/mikasa_experts; the table goes to results/
"""

import hashlib
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from engram import envs, provenance, walltime
from engram.envs import mikasa
from engram.envs.noise import Noise
from engram.files import replace_text
from engram.report import write_result
from engram.stats import wilson

FIRST_SEED = 3_500_000
CONSOLE = Console(stderr=True)


@dataclass(frozen=True)
class Args:
    """Settings."""

    episodes: int = 100
    noise: tuple[float, ...] = (0.0, 0.3)
    out: Path = Path("runs/mikasa_experts")
    results: Path = Path("results/mikasa_experts.json")


def main(args: Args) -> None:
    """Play what is missing, write the table."""
    args.out.mkdir(parents=True, exist_ok=True)
    versions = {name: provenance.versions()[name] for name in ("mani-skill", "sapien", "mikasa-robo-suite")}
    plan = {"experts": envs.expert_sha256(envs.MIKASA), "pushed_long": mikasa.PUSHED_LONG, "versions": versions}
    provenance.settle(args.out, plan)
    tasks = [task for task in mikasa.TASKS if mikasa.there(task)]
    jobs = [(args, task, noise) for task in tasks for noise in args.noise]
    missing = [job for job in jobs if not file(*job).exists()]
    with walltime.timed(args.out), ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(track(pool.map(measure, *zip(*missing, strict=True)), "experts", total=len(missing), console=CONSOLE))
    rows = [json.loads(file(*job).read_text()) for job in jobs]
    counters = {"episodes": sum(row["episodes"] for row in rows)}
    asked = {key: str(value) for key, value in asdict(args).items()} | {"first_seed": FIRST_SEED}
    notes = "Actions are the controller's, bounded by 1."
    if left_out := [task for task in mikasa.TASKS if task not in tasks]:
        notes += f" Not played, since their mug was not there: {', '.join(left_out)}."
    else:
        notes += f" The shell game's mug: collision.ply of sha256 {hashlib.sha256(mug().read_bytes()).hexdigest()}."
    seconds = walltime.spent(args.out)
    write_result(args.results, "mikasa_experts", "recipes/mikasa_experts.py", rows, seconds, counters, asked, notes)


def mug() -> Path:
    """The collision mesh of the shell game's cups."""
    from mani_skill import ASSET_DIR  # here and not above: it takes seconds to load

    return ASSET_DIR / "assets/mani_skill2_ycb/models/025_mug/collision.ply"


def file(args: Args, task: str, noise: float) -> Path:
    """Where the row of a task goes."""
    return args.out / f"{task}-noise{noise}-{args.episodes}.json"


def measure(args: Args, task: str, noise: float) -> None:
    """One row: the expert's success over the episodes."""
    env = mikasa.make(task, images=False)
    played = [episode(env, task, seed, noise) for seed in range(FIRST_SEED, FIRST_SEED + args.episodes)]
    env.close()
    successes = sum(success for success, _ in played)
    row = {
        "policy": "expert", "task": task, "train_seed": None, "noise": noise, "episodes": len(played),
        "successes": successes, "success": successes / len(played), "ci95": list(wilson(successes, len(played))),
        "mean_ticks": fmean(ticks for _, ticks in played), "limit": env.limit,
    }  # fmt: skip
    replace_text(file(args, task, noise), json.dumps(row) + "\n")


def episode(env, task: str, seed: int, noise: float) -> tuple[bool, int]:
    """Whether the expert succeeds, and after how many ticks it is over."""
    task = f"mikasa/{task}"
    act, draws = envs.expert(task), np.random.default_rng([seed, 1])
    disturb = Noise(draws, noise, ticks=envs.pushed_ticks(task))
    _, info = env.reset(seed=seed)
    over = False
    while not over:
        _, _, terminated, truncated, info = env.step(disturb(act(env)))
        over = terminated or truncated
    return info["success"], info["tick"]


if __name__ == "__main__":
    main(tyro.cli(Args))
