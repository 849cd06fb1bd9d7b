"""Evaluate what `engram train` made: load and play; for a swap first the episodes whose memories are given away."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import gymnasium

from engram.data.seeds import TEST
from engram.envs import make, usual_lanes
from engram.files import run_folder, run_name
from engram.policies import checkpoint
from engram.policies.base import Policy
from engram.rollout import interventions, records
from engram.rollout.evaluate import evaluate, require_possible
from engram.rollout.interventions import At, Intervention
from engram.rollout.overlay import film_attention, lookable

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
    at: At = None,
    replan: int | None = None,
    ensemble: float | None = None,
    lanes: int | None = None,
    workers: int = 2,
    videos: int = 0,
    attention: int = 0,
    knobs: Mapping[str, object] | None = None,
    name: str | None = None,
    progress: bool = True,
    keep_onset: bool = False,
    kept_at: At = None,
    donors: Path | None = None,
) -> dict:
    """The summary of `engram.rollout.evaluate` for the policy in `folder`.

    `intervention` is "none" or a name of engram/rollout/interventions.py; `out` defaults to a file beside the
    checkpoint named after all that decides its episodes. For a swap, `donors` is an evaluation of this checkpoint that
    kept its memories at the same moment (`keep_onset`, `kept_at`); without one it is played first. Where the policy
    looks is filmed in the first `attention` episodes, into NAME.video/attention-SEED.mp4. Raises ValueError for a wrong
    checkpoint, task, knob or name, for donors of another policy or other knobs, and for a policy that cannot be looked
    into.
    """
    lanes = usual_lanes(task, workers) if lanes is None else lanes
    policy, change = _load(folder, replan, ensemble), _change(intervention, at)
    name, knobs, seeds = name or run_name(folder), dict(knobs or {}), list(seeds)
    require_possible(policy, change, seeds, lanes, workers, videos)  # here, too: before donors are played
    if intervention == "swap" and len(seeds) < 2:
        raise ValueError(f"swap: expected 2 or more episodes, found {len(seeds)}; ask for more, one is another's donor")
    out = out or run_folder(folder) / "eval" / _file(
        task, name, change, {**knobs, "replan": replan, "ensemble": ensemble}, min(seeds)
    )
    _require_looks(policy, change, attention)
    if not out.exists():
        _forget_looks(out)
    play = partial(
        evaluate, policy, task, seeds, policy_name=name, knobs=knobs, lanes=lanes, workers=workers, progress=progress
    )
    if change is not None and intervention == "swap":
        if donors is None:
            donors = out.with_name(out.stem + "-donors.jsonl")
            play(donors, keep_onset=True, kept_at=at)
        _require_donors_of(policy, knobs, at, donors)
        change = replace(change, donors=records.donors(donors))
    summary = play(out, intervention=change, video_first=videos, keep_onset=keep_onset, kept_at=kept_at)
    _film_looks(policy, partial(make, task, **knobs), sorted(set(seeds))[:attention], out)
    return summary


def _require_looks(policy: Policy, change: Intervention | None, attention: int) -> None:
    """ValueError, before any episode is played, unless so many films of attention can be made."""
    if attention < 0:
        raise ValueError(f"attention: expected 0 or more, found {attention}; give another number")
    if attention and change is not None:
        expected = "no intervention beside it, since these films show memory left alone"
        raise ValueError(f"attention: expected {expected}, found {change.label}; leave one of the two out")
    if attention:
        lookable(policy)


def _film_looks(policy: Policy, make: Callable[[], gymnasium.Env], seeds: list[int], out: Path) -> None:
    """A film of where the policy looks in each of these episodes that has none yet."""
    for seed in seeds:
        film = out.with_suffix(".video") / f"attention-{seed}.mp4"
        if not film.exists():
            film_attention(policy, make, seed, film)


def _forget_looks(out: Path) -> None:
    """Remove such films that a removed file of this name left behind: they may be another policy's."""
    for film in out.with_suffix(".video").glob("attention-*.mp4"):
        film.unlink()


def _require_donors_of(policy: Policy, knobs: dict, at: At, donors: Path) -> None:
    """ValueError unless the memories in `donors` are this policy's, of the same environment and moment."""
    made = records.settings(donors)
    wanted = {"policy_sha256": records.fingerprint(policy), "knobs": json.loads(json.dumps(knobs)), "kept_at": at}
    for key, asked in wanted.items():
        if made.get(key) != asked:
            do = "give an evaluation of this checkpoint, or none"
            raise ValueError(f"donors {donors}: expected {key} {asked}, found {made.get(key)}; {do}")


def _load(folder: Path, replan: int | None, ensemble: float | None) -> Policy:
    policy, _ = checkpoint.load(folder)
    if replan is not None:
        if not 1 <= replan <= policy.chunk:
            raise ValueError(f"replan: expected 1 to {policy.chunk} ticks (the chunk), found {replan}")
        policy.replan = replan
    if ensemble is not None:
        if not 0 <= ensemble <= 1:
            raise ValueError(f"ensemble: expected a weight from 0 to 1, found {ensemble}")
        policy.ensemble = ensemble
    return policy


def _change(name: str, at: At) -> Intervention | None:
    if name in KINDS:
        return KINDS[name](at)
    if name != "none":
        raise ValueError(f"intervention: expected one of none, {', '.join(KINDS)}, found {name!r}")
    if at is not None:
        raise ValueError(
            f"at: expected an intervention that begins at tick {at}, found none; name one, or give no tick"
        )
    return None


def _file(task: str, name: str, change: Intervention | None, marks: dict[str, object], first: int) -> str:
    """The default name: other settings and other first seeds get a file of their own, more episodes do not."""
    marks = {**marks, "seeds": None if first == TEST else first}
    given = "".join(f"-{key}={value}" for key, value in sorted(marks.items()) if value is not None).replace(" ", "")
    return f"{task.replace('/', '-')}-{name}-{'none' if change is None else change.label}{given}.jsonl"
