"""Is it memory that does it? muVLA of recipes/mikasa_mu_vla.py on the protocol's episodes, its memory changed.

RememberColor5 from the onset of the choice on, and frozen when the cue ends; TakeItBack (which shows no cue, so that
there is no onset) from tick 10 on. Of the paper (arXiv 2606.12497) we have notes at second hand: noise from the first
tick on, 0.94 -> 0.09 and 0.99 -> 0.21.

    make mikasa
    engram study recipes/mikasa_mu_vla.py
    python recipes/mikasa_interventions.py        # resumes; the table goes to results/
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from engram import walltime
from engram.envs.mikasa import FIRST_SEED, simulated
from engram.report import write_result
from engram.rollout.checkpoint import KINDS, evaluate_checkpoint
from engram.rollout.interventions import At

RECALL, BACK = "mikasa/RememberColor5", "mikasa/TakeItBack"
TRIALS: dict[str, tuple[tuple[str, At], ...]] = {  # what is done, from when on (None: the onset); "none" comes first
    RECALL: (("none", None), *((kind, None) for kind in KINDS), ("freeze", "cue")),
    BACK: (("none", 10), *((kind, 10) for kind in KINDS)),
}
NOTES = (
    "Zero and noise from the named tick on at every tick; freeze keeps what memory held then; reset forgets once; swap "
    "gives the memory that another episode had at that moment (donor_choice: how often its colour is chosen). Memory "
    f"begins as zero, so reset is zero once. Episodes {simulated()}, the wrist camera's housing not drawn."
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
        rows = [row(args, task, *trial) for task, trials in TRIALS.items() for trial in trials]
    counters = {
        key: sum(row["counters"][key] for row in rows) for key in ("observations", "writes", "plans", "renders")
    }
    shown = [{key: value for key, value in row.items() if key != "counters"} for row in rows]
    asked = {key: str(value) for key, value in asdict(args).items()} | {"first_seed": FIRST_SEED}
    write_result(
        args.results, "mikasa_interventions", "recipes/mikasa_interventions.py", shown, walltime.spent(args.out),
        counters, asked, NOTES,
    )  # fmt: skip


def row(args: Args, task: str, kind: str, at: At) -> dict:
    """The row of one intervention; donors of a swap are the untouched episodes, which keep their memories."""
    seeds, untouched = range(FIRST_SEED, FIRST_SEED + args.episodes), kind == "none"
    named = kind if untouched or at is None else f"{kind}@{at}"
    result = evaluate_checkpoint(
        args.checkpoint, task, seeds, args.out / task / f"{named}.jsonl", intervention=kind,
        at=None if untouched else at, workers=args.workers, keep_onset=untouched, kept_at=at,
        donors=args.out / task / "none.jsonl" if kind == "swap" else None,
    )  # fmt: skip
    keys = ("task", "episodes", "successes", "success", "ci95", "donor_choice", "errors", "counters")
    told = {"policy": result["policy"], "train_seed": None, "intervention": kind}
    return told | {"at": None if untouched else at or "onset"} | {key: result[key] for key in keys}


if __name__ == "__main__":
    main(tyro.cli(Args))
