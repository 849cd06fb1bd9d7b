"""muVLA of recipes/mikasa_mu_vla.py on a hundred episodes of each task that nobody had looked at before.

The protocol's episodes were scored again and again while that recipe came to be (dev/LOG.md), which may have fitted it
to them; these were played once, when it was done.

    make mikasa
    engram study recipes/mikasa_mu_vla.py
    python recipes/mikasa_unseen.py        # resumes; the table goes to results/
"""

import runpy
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from engram import walltime
from engram.report import write_result
from engram.rollout.checkpoint import evaluate_checkpoint

FIRST_SEED = 3_700_000
STUDY = runpy.run_path(str(Path(__file__).with_name("mikasa_mu_vla.py")))["STUDY"]


@dataclass(frozen=True)
class Args:
    """Settings."""

    policies: tuple[str, ...] = ("muVLA-seed0",)  # folders of the study's run
    study: Path = Path("runs/mikasa_mu_vla")
    episodes: int = 100
    workers: int = 2
    out: Path = Path("runs/mikasa_unseen")
    results: Path = Path("results/mikasa_unseen.json")


def main(args: Args) -> None:
    """Play what is missing, write the table."""
    with walltime.timed(args.out):
        rows = [row(args, policy, task) for policy in args.policies for task in STUDY.tested]
    counters = {
        key: sum(row["counters"][key] for row in rows) for key in ("observations", "writes", "plans", "renders")
    }
    shown = [{key: value for key, value in row.items() if key != "counters"} for row in rows]
    asked = {key: str(value) for key, value in asdict(args).items()} | {"first_seed": FIRST_SEED}
    write_result(
        args.results, "mikasa_unseen", "recipes/mikasa_unseen.py", shown, walltime.spent(args.out), counters, asked,
        f"Seeds {FIRST_SEED}+i. {STUDY.notes}",
    )  # fmt: skip


def row(args: Args, policy: str, task: str) -> dict:
    """The row of one policy and task."""
    seeds, out = range(FIRST_SEED, FIRST_SEED + args.episodes), args.out / policy / f"{task.replace('/', '-')}.jsonl"
    result = evaluate_checkpoint(args.study / policy / "checkpoint", task, seeds, out, workers=args.workers)
    name, _, seed = policy.rpartition("-seed")
    keys = ("task", "episodes", "successes", "success", "ci95", "errors", "counters")
    return {"policy": name, "train_seed": int(seed)} | {key: result[key] for key in keys}


if __name__ == "__main__":
    main(tyro.cli(Args))
