"""Evaluate what `engram train` made: load and play; for a swap first the episodes whose memories are given away."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from engram.policies import checkpoint
from engram.rollout import interventions, records
from engram.rollout.evaluate import evaluate
from engram.rollout.interventions import Intervention

SIMPLE = {
    "zero": interventions.zero,
    "noise": interventions.noise,
    "freeze": interventions.freeze,
    "reset": interventions.reset,
}


def evaluate_checkpoint(
    folder: Path,
    task: str,
    seeds: Iterable[int],
    out: Path | None = None,
    *,
    intervention: str = "none",
    at: int | None = None,
    replan: int | None = None,
    lanes: int = 16,
    workers: int = 2,
    videos: int = 0,
    knobs: Mapping[str, object] | None = None,
    name: str | None = None,
    progress: bool = True,
    keep_onset: bool = False,
    donors: Path | None = None,
) -> dict:
    """The summary of `engram.rollout.evaluate` for the policy in `folder`.

    `intervention` is "none" or a name of engram/rollout/interventions.py; `out` defaults to a file beside the
    checkpoint named after task and intervention. For a swap, `donors` is an evaluation that kept its onsets
    (`keep_onset`) and is played first if there is none. Raises ValueError for a wrong checkpoint, task, knob or name.
    """
    policy, _ = checkpoint.load(folder)
    if replan is not None:
        if not 1 <= replan <= policy.chunk:
            raise ValueError(f"replan: expected 1 to {policy.chunk} ticks (the chunk), found {replan}")
        policy.replan = replan
    name = name or folder.resolve().parent.name
    knobs, seeds = dict(knobs or {}), list(seeds)
    marks = "".join(f"-{key}={value}" for key, value in sorted(knobs.items())).replace(" ", "")
    out = out or folder.parent / "eval" / f"{task}-{name}-{intervention}{marks}.jsonl"
    play = partial(
        evaluate, policy, task, seeds, policy_name=name, knobs=knobs, lanes=lanes, workers=workers, progress=progress
    )
    if intervention != "swap":
        change = None if intervention == "none" else _simple(intervention, at)
        return play(out, intervention=change, video_first=videos, keep_onset=keep_onset)
    if donors is None:
        donors = out.with_name(out.stem + "-donors.jsonl")
        play(donors, keep_onset=True)
    change = interventions.swap(records.donors(donors), at)
    return play(out, intervention=change, video_first=videos)


def _simple(name: str, at: int | None) -> Intervention:
    if name not in SIMPLE:
        raise ValueError(f"intervention: expected none, {', '.join(SIMPLE)} or swap, found {name!r}")
    return SIMPLE[name](at)
