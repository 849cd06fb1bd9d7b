"""Evaluate what `engram train` made: load and play; for a swap first the episodes whose memories are given away."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from engram.data.seeds import TEST
from engram.policies import checkpoint
from engram.policies.base import Policy
from engram.rollout import interventions, records
from engram.rollout.evaluate import evaluate, require_possible
from engram.rollout.interventions import Intervention

KINDS = {
    "zero": interventions.zero,
    "noise": interventions.noise,
    "freeze": interventions.freeze,
    "reset": interventions.reset,
    "swap": partial(interventions.swap, {}),  # its donors are not known yet
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
    checkpoint named after all that decides its episodes. For a swap, `donors` is an evaluation of this checkpoint that
    kept its onsets (`keep_onset`); without one it is played first. Raises ValueError for a wrong checkpoint, task, knob
    or name, and for donors of another policy or other knobs.
    """
    policy, change = _load(folder, replan), _change(intervention, at)
    name, knobs, seeds = name or folder.resolve().parent.name, dict(knobs or {}), list(seeds)
    require_possible(policy, change, seeds, lanes, workers, videos)  # here, too: before donors are played
    out = out or folder.parent / "eval" / _file(task, name, change, knobs, replan, min(seeds))
    play = partial(
        evaluate, policy, task, seeds, policy_name=name, knobs=knobs, lanes=lanes, workers=workers, progress=progress
    )
    if change is not None and intervention == "swap":
        if donors is None:
            donors = out.with_name(out.stem + "-donors.jsonl")
            play(donors, keep_onset=True)
        _require_donors_of(policy, knobs, donors)
        change = replace(change, donors=records.donors(donors))
    return play(out, intervention=change, video_first=videos, keep_onset=keep_onset)


def _require_donors_of(policy: Policy, knobs: dict, donors: Path) -> None:
    """ValueError unless the memories in `donors` are this policy's, of the same environment."""
    made = records.settings(donors)
    for key, asked in (("policy_sha256", records.fingerprint(policy)), ("knobs", json.loads(json.dumps(knobs)))):
        if made[key] != asked:
            do = "give an evaluation of this checkpoint, or none"
            raise ValueError(f"donors {donors}: expected {key} {asked}, found {made[key]}; {do}")


def _load(folder: Path, replan: int | None) -> Policy:
    policy, _ = checkpoint.load(folder)
    if replan is not None:
        if not 1 <= replan <= policy.chunk:
            raise ValueError(f"replan: expected 1 to {policy.chunk} ticks (the chunk), found {replan}")
        policy.replan = replan
    return policy


def _change(name: str, at: int | None) -> Intervention | None:
    if name in KINDS:
        return KINDS[name](at)
    if name != "none":
        raise ValueError(f"intervention: expected one of none, {', '.join(KINDS)}, found {name!r}")
    if at is not None:
        raise ValueError(
            f"at: expected an intervention that begins at tick {at}, found none; name one, or give no tick"
        )
    return None


def _file(
    task: str, name: str, change: Intervention | None, knobs: dict[str, object], replan: int | None, first: int
) -> str:
    """The default name: other settings and other first seeds get a file of their own, more episodes do not."""
    marks = {**knobs, "replan": replan, "seeds": None if first == TEST else first}
    given = "".join(f"-{key}={value}" for key, value in sorted(marks.items()) if value is not None).replace(" ", "")
    return f"{task}-{name}-{'none' if change is None else change.label}{given}.jsonl"
