"""Evaluate one policy on one task: episodes by seed, resumable, with a summary that carries its own proof."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import gymnasium
from gymnasium.spaces import Box, Dict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engram import provenance
from engram.envs import make as make_task
from engram.envs.vector import VectorEnv
from engram.policies.base import Policy
from engram.rollout.episodes import CounterError, EpisodeError, Keep, Record, play, require_memory
from engram.rollout.interventions import At, Intervention
from engram.rollout.records import fingerprint, resume, save_onset
from engram.rollout.video import film
from engram.stats import mean, wilson
from engram.types import Spec

SEEDS = 2**32  # NumPy's and the simulators' have 32 bits
ERROR_LIMIT = 5  # after so many failed episodes it is the environment, not an episode


def evaluate(
    policy: Policy,
    task: str,
    seeds: Iterable[int],
    out: Path,
    *,
    policy_name: str,
    knobs: Mapping[str, object] | None = None,
    intervention: Intervention | None = None,
    keep_onset: bool = False,
    kept_at: At = None,
    lanes: int = 16,
    workers: int = 2,
    video_first: int = 0,
    progress: bool = True,
    make: Callable[..., gymnasium.Env] = make_task,
) -> dict:
    """Play one episode of `task` per seed, append each to `out` (JSONL), and return the summary over these seeds.

    Episodes that `out` already holds are not played again; a file made with other settings is refused. `keep_onset`
    also keeps the memory of each episode at its onset, or at `kept_at` (what `records.donors` needs). The first
    `video_first` seeds are filmed into the folder `NAME.video`. `make(task, **knobs)` makes one environment; it must
    pickle when workers > 0. Lanes and workers change the speed, not the outcome.

    Beside what `summarise` says, the summary holds what decided the episodes, the seconds of this sitting and the
    share of its play in which the policy waited for simulators or their start (None where nothing was left to play).

    Raises ValueError for a wrong setting or observation, CounterError when counts disagree, and, after all other
    episodes are done, EpisodeError when an environment failed.
    """
    out, seeds, knobs, began = Path(out), sorted({int(seed) for seed in seeds}), dict(knobs or {}), time.monotonic()
    names = {"policy": policy_name, "task": task, "intervention": None if intervention is None else intervention.label}
    proof = {"policy_sha256": fingerprint(policy), "knobs": knobs, "replan": policy.replan}
    make_one = partial(make, task, **knobs)
    require_possible(policy, intervention, seeds, lanes, workers, video_first)
    _require_donors(intervention, seeds)
    if new := not out.exists():
        _require_fit(policy, make_one, task)  # before the first file, as all that can be wrong in a call
    kept = {"keep_onset": keep_onset} | ({"kept_at": kept_at} if keep_onset and kept_at is not None else {})
    done, waited = resume(out, names | proof | kept), None
    if todo := [seed for seed in seeds if seed not in done]:
        if not new:
            _require_fit(policy, make_one, task)  # what could be played then may not be any more
        before, lanes = [done[seed] for seed in seeds if seed in done], min(lanes, len(todo))
        with VectorEnv(make_one, lanes, workers) as envs:
            keep = Keep(partial(save_onset, out), kept_at) if keep_onset else None
            played = (names | record for record in play(policy, envs, lanes, todo, intervention, keep))
            shown = _watched(played, before, _bar(progress), f"{policy_name} on {task}", len(seeds))
            start = time.monotonic()
            done |= {line["seed"]: line for line in _appended(shown, out)}
            waited = round(envs.seconds / (time.monotonic() - start), 3)
    episodes = [done[seed] for seed in seeds if seed in done]
    _require_no_errors(episodes, out)
    _film(policy, make_one, episodes[:video_first], out.with_suffix(".video"), intervention)
    made = {"seeds": [seeds[0], seeds[-1]], "commit": provenance.commit(), "versions": provenance.versions()}
    return summarise(episodes) | proof | made | {
        "seconds": round(time.monotonic() - began, 2), "simulator_share": waited,
    }  # fmt: skip


def require_possible(
    policy: Policy, intervention: Intervention | None, seeds: Sequence[int], lanes: int, workers: int, videos: int
) -> None:
    """ValueError for what no evaluation can be made of: what it checks needs no environment."""
    if intervention is not None:
        require_memory(policy, intervention)
    for name, found, least in (("lanes", lanes, 1), ("workers", workers, 0), ("videos", videos, 0)):
        if found < least:
            raise ValueError(f"{name}: expected {least} or more, found {found}; give another number")
    if not seeds:
        raise ValueError("seeds: expected at least one episode, found none; ask for 1 or more")
    if min(seeds) < 0:
        raise ValueError(f"seeds: expected 0 or more, found {min(seeds)}; give another first seed")
    if max(seeds) >= SEEDS:
        raise ValueError(f"seeds: expected less than {SEEDS}, found {max(seeds)}; give a lower first seed")


def _require_donors(intervention: Intervention | None, seeds: Sequence[int]) -> None:
    """ValueError unless, in a swap, every episode has another whose memory it is given."""
    donors = None if intervention is None else intervention.donors
    if donors is not None and (lacking := [seed for seed in seeds if seed not in donors]):
        expected = f"a donor for each of {len(seeds)} episodes, found none for seed {lacking[0]}"
        raise ValueError(f"swap: expected {expected} (of {len(lacking)}); evaluate these seeds with keep_onset first")


def summarise(episodes: Sequence[Record]) -> dict:
    """What the episodes of one (policy, task, intervention) say together; ValueError for no episode.

    `success` is the share of the episodes without error, `ci95` its Wilson interval; `donor_choice` the share that
    chose the answer of the donor of their memory, None without a swap or where nothing is chosen; `errors` are counted
    in neither.
    """
    if not episodes:
        raise ValueError("expected at least one episode to summarise, found none; give at least one seed")
    sound = [line for line in episodes if line["error"] is None]
    successes = sum(line["success"] for line in sound)
    chosen = any(line["choice"] is not None for line in sound)
    swapped = [line["choice"] == line["donor_answer"] for line in sound if chosen and line["donor_answer"] is not None]
    return {
        **{key: episodes[0][key] for key in ("policy", "task", "intervention")},
        "episodes": len(sound),
        "successes": successes,
        "success": mean([line["success"] for line in sound]),
        "ci95": list(wilson(successes, len(sound))),
        "donor_choice": mean(swapped),
        "errors": len(episodes) - len(sound),
        "ticks": sum(line["ticks"] for line in sound),
        "counters": _totals(sound),
    }


def _require_fit(policy: Policy, make: Callable[[], gymnasium.Env], task: str) -> None:
    """Make one environment here, before any worker: a wrong task, knob, camera, size or rate is one clear sentence, and
    so are cameras that are switched off."""
    env = make()
    try:
        assert isinstance(env.observation_space, Dict)
        spaces = env.observation_space.spaces
        cameras = tuple(camera for camera in policy.spec.cameras if camera in spaces)
        height, width, _ = _shape(spaces[cameras[0]]) if cameras else (0, 0, 3)
        (proprio_dim,), (action_dim,) = _shape(spaces["proprio"]), _shape(env.action_space)
        found = Spec(cameras, height, width, proprio_dim, action_dim, control_hz=float(env.metadata["render_fps"]))
        policy.spec.require(found, f"environment {task}")
        _, info = env.reset(seed=0)
        if not info["frames"]:
            do = "leave this knob out"
            raise ValueError(f"environment {task}: expected camera images, found none (images=False); {do}")
    finally:
        env.close()


def _shape(space: gymnasium.Space) -> tuple[int, ...]:
    assert isinstance(space, Box)
    return space.shape


def _totals(sound: Sequence[Record]) -> dict[str, int]:
    """Counters over all episodes, once more held against the environments' own ticks. Raises CounterError."""
    names = ("observations", "plans", "writes", "renders")
    total = {name: sum(line["counters"][name] for line in sound) for name in names}
    ticks = sum(line["ticks"] for line in sound)
    if not total["observations"] == total["renders"] == ticks or total["writes"] > ticks:
        said = f"one observation and render, and at most one write, for each of {ticks} ticks"
        raise CounterError(f"expected {said}, found {total}")
    return total


def _appended(records: Iterable[Record], out: Path) -> Iterator[Record]:
    """The records, each on disk before it is passed on."""
    with out.open("a", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")
            file.flush()
            yield record


def _watched(
    records: Iterable[Record], before: Sequence[Record], bar: Progress, title: str, total: int
) -> Iterator[Record]:
    """The records, counted on a progress bar; ends early when too many are errors."""
    lines = list(before)
    with bar:
        task = bar.add_task(title, total=total, completed=len(lines), success="")
        for record in records:
            lines.append(record)
            sound = [line["success"] for line in lines if line["error"] is None]
            rate = mean(sound)
            bar.update(task, advance=1, success="" if rate is None else f"success {rate:.2f}")
            yield record
            if len(lines) - len(sound) > ERROR_LIMIT:
                return


def _bar(shown: bool) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[success]}"),
    )
    console = Console(stderr=True)  # the summary has the other stream to itself
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), disable=not shown, console=console)


def _require_no_errors(episodes: Sequence[Record], out: Path) -> None:
    errors = [line for line in episodes if line["error"] is not None]
    if errors:
        listed = "\n".join(f"seed {line['seed']}: {line['error']}" for line in errors)
        raise EpisodeError(
            f"{len(errors)} of {len(episodes)} episodes ended in an error of their environment and count as neither "
            f"success nor failure; the others are in {out}: mend the cause and run again to play the rest\n{listed}"
        )


def _film(
    policy: Policy,
    make: Callable[[], gymnasium.Env],
    episodes: Sequence[Record],
    folder: Path,
    change: Intervention | None,
) -> None:
    """A film of every episode that has none yet."""
    for episode in episodes:
        out = folder / f"{episode['seed']}.mp4"
        if not out.exists():
            film(policy, make, episode["seed"], out, change, episode)
