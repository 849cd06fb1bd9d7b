"""Is it memory that does it? muVLA of recipes/mikasa_mu_vla.py on the protocol's episodes, its memory changed.

RememberColor5 from the onset of the choice on, TakeItBack (which shows no cue, so that there is no onset) from tick 10
on. The paper has for noise: 0.94 -> 0.09 and 0.99 -> 0.21 (arXiv 2606.12497, from the first tick on).

    make mikasa
    engram study recipes/mikasa_mu_vla.py
    python recipes/mikasa_interventions.py        # resumes; the table goes to results/
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from engram import walltime
from engram.envs.mikasa import FIRST_SEED
from engram.report import write_result
from engram.rollout.checkpoint import KINDS, evaluate_checkpoint

AT = {"mikasa/RememberColor5": None, "mikasa/TakeItBack": 10}  # tick of the first change; None: the onset
KINDS_OF = {"mikasa/RememberColor5": tuple(KINDS), "mikasa/TakeItBack": ("zero", "noise", "freeze", "reset")}
NOTES = (
    "Zero and noise from the named tick on at every tick; freeze keeps what memory held then; reset forgets once; swap "
    "gives the memory that another episode had at its onset (donor_choice: how often its colour is chosen); it needs "
    "one. Memory begins as zero, so reset is zero once. CPU renderer and all else as in mikasa_mu_vla."
)


@dataclass(frozen=True)
class Args:
    """Settings."""

    checkpoint: Path = Path("runs/mikasa_mu_vla/muVLA-seed0/checkpoint")
    episodes: int = 100
    workers: int = 2
    out: Path = Path("runs/mikasa_interventions")
    results: Path = Path("results/mikasa_interventions.json")


def main(args: Args) -> None:
    """Play what is missing, write the table."""
    with walltime.timed(args.out):
        rows = [row(args, task, kind) for task in AT for kind in ("none", *KINDS_OF[task])]
    counters = {
        key: sum(row["counters"][key] for row in rows) for key in ("observations", "writes", "plans", "renders")
    }
    shown = [{key: value for key, value in row.items() if key != "counters"} for row in rows]
    asked = {key: str(value) for key, value in asdict(args).items()} | {"first_seed": FIRST_SEED, "at": AT}
    write_result(
        args.results, "mikasa_interventions", "recipes/mikasa_interventions.py", shown, walltime.spent(args.out),
        counters, asked, NOTES,
    )  # fmt: skip


def row(args: Args, task: str, kind: str) -> dict:
    """The row of one intervention; donors of a swap are the untouched episodes."""
    seeds = range(FIRST_SEED, FIRST_SEED + args.episodes)
    untouched = args.out / task / "none.jsonl"
    result = evaluate_checkpoint(
        args.checkpoint, task, seeds, args.out / task / f"{kind}.jsonl", intervention=kind, name="muVLA",
        at=None if kind == "none" else AT[task], workers=args.workers, keep_onset=kind == "none",
        donors=untouched if kind == "swap" else None,
    )  # fmt: skip
    keys = ("task", "episodes", "successes", "success", "ci95", "errors", "counters")
    begins = {"at": None if kind == "none" else AT[task] or "onset"}
    return {
        "policy": "muVLA",
        "train_seed": 0,
        "intervention": kind,
        **begins,
        "donor_choice": result.get("donor_choice"),
    } | {key: result[key] for key in keys}


if __name__ == "__main__":
    main(tyro.cli(Args))
