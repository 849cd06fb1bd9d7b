"""Demonstrations: the scripted expert plays, a data set comes out. Same arguments, same bytes."""

import atexit
import json
import math
import multiprocessing
import os
import shutil
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import engram
from engram import envs, provenance
from engram.data import layout
from engram.data.layout import DataError
from engram.data.seeds import DEMOS, VALIDATION
from engram.data.writer import Writer
from engram.envs.noise import Noise
from engram.files import replace_text
from engram.types import Spec

Expert = Callable[[gymnasium.Env], np.ndarray]  # from an environment to an action, float32 (A,)
SPAN = 100_000  # environment seeds that one `seed` of `collect` has to itself


@dataclass(frozen=True)
class Collected:
    """What `collect` made: episodes kept, episodes dropped because the expert failed, and frames."""

    kept: int
    dropped: int
    frames: int


def collect(
    task: str, episodes: int, out: Path | str, seed: int = 0, noise: float = 0.3, workers: int = 2, **knobs: Any
) -> Collected:
    """Record `episodes` successes of a task's expert as a data set at `out`.

    Args:
        task: a name that `engram.envs.make` knows; `knobs` change its settings.
        episodes: successes to keep: those of the first environment seeds that succeed.
        out: directory to make; refused if it exists.
        seed: 0 to 9; environment seeds count from `DEMOS + seed * 100_000`.
        noise: how far executed actions stray from the expert's, so that states beside the path, and the way back,
            are seen. `action` in the data is what the expert wanted, `previous_action` what was executed.
        workers: processes that play. The data set does not depend on it.

    May be killed at any moment: finished episodes wait in `OUT.partial`, from which the same call goes on.
    ValueError for an unknown task or knob, an existing `out`, an impossible number of episodes, or an expert that
    fails more often than it succeeds.
    """
    out = Path(out)
    _check(episodes, seed, noise, workers, out)
    with envs.make(task, **knobs) as env:  # names an unknown task or knob before anything is written
        spec = spec_of(env)
        _require_images(env, task)
    asked = {"task": task, "knobs": knobs, "noise": noise, "pushed_ticks": envs.pushed_ticks(task)}
    asked["expert_sha256"] = envs.expert_sha256(task)
    shards = _shards(out, {**asked, "engram": engram.__version__})
    first, robot = DEMOS + seed * SPAN, "engram-mikasa" if task.startswith(envs.MIKASA) else "engram-tabletop"
    kept = dropped = frames = 0
    with Writer(out, spec, robot=robot) as writer, _progress() as progress:
        bar = progress.add_task(f"{task}: expert plays", total=episodes)
        for path in _play(task, knobs, noise, shards, first, episodes, workers):
            if path is None:
                dropped += 1
                _require_expert(task, episodes, kept, dropped)
                continue
            episode = _load(path)
            writer.add_episode(**episode)
            kept, frames = kept + 1, frames + len(episode["action"])
            progress.advance(bar)
        seeds = [first, first + kept + dropped - 1]
        writer.notes = {**asked, "seeds": seeds, "dropped": dropped, "commit": provenance.commit()}
    shutil.rmtree(shards)
    return Collected(kept, dropped, frames)


def other_expert(folder: Path, task: str) -> bool:
    """Whether a data set was recorded by an expert that was written differently, or disturbed for longer or shorter, or
    does not say."""
    now = {"expert_sha256": envs.expert_sha256(task), "pushed_ticks": envs.pushed_ticks(task)}
    return any(notes(folder).get(key) != value for key, value in now.items())


def notes(folder: Path) -> dict[str, Any]:
    """How a data set was recorded (`collect`'s arguments, the seeds, the commit); empty where it does not say."""
    file = folder / layout.NOTES
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def play(env: gymnasium.Env, act: Expert, seed: int, noise: float, pushed: int = 8) -> dict[str, Any] | None:
    """One episode of the expert `act`, of whose actions the first `pushed` may be disturbed; None if it failed.

    Arrays by tick: `image.CAMERA` uint8 (T, H, W, 3), `state` float32 (T, P), `action` and `previous_action` float32
    (T, A); and `task`, the instruction. The observation after the last action is not part of it: nothing is done there.
    """
    draws = np.random.default_rng([seed, 1])  # not the environment's own, whatever those are
    disturb = Noise(draws, noise, ticks=pushed)
    observation, info = env.reset(seed=seed)
    executed = np.zeros(env.action_space.shape or (), np.float32)
    rows: list[dict[str, np.ndarray]] = []
    cameras = spec_of(env).cameras
    over = False
    while not over:
        wanted = act(env)
        images = {f"image.{camera}": observation[camera] for camera in cameras}
        rows.append({**images, "state": observation["proprio"], "action": wanted, "previous_action": executed})
        executed = disturb(wanted)
        observation, _, terminated, truncated, info = env.step(executed)
        over = terminated or truncated
    if not info["success"]:
        return None
    return {**{key: np.stack([row[key] for row in rows]) for key in rows[0]}, "task": info["instruction"]}


def spec_of(env: gymnasium.Env) -> Spec:
    """What an environment gives, from its spaces: cameras are all that is not proprioception."""
    spaces = env.observation_space
    assert isinstance(spaces, gymnasium.spaces.Dict)
    cameras = tuple(name for name in spaces.spaces if name != "proprio")
    shape = {name: space.shape or () for name, space in spaces.items()}
    height, width, _ = shape[cameras[0]]
    actions = env.action_space.shape or ()
    return Spec(cameras, height, width, shape["proprio"][0], actions[0], float(env.metadata["render_fps"]))


def _check(episodes: int, seed: int, noise: float, workers: int, out: Path) -> None:
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise: expected a finite number, 0 or more, found {noise}; 0.3 is usual")
    if not 1 <= episodes <= SPAN // 2 or not 0 <= seed < (VALIDATION - DEMOS) // SPAN or workers < 1:
        expected = f"1 to {SPAN // 2} episodes, seed 0 to {(VALIDATION - DEMOS) // SPAN - 1} and at least 1 worker"
        raise ValueError(f"expected {expected}, found {episodes}, {seed} and {workers}; choose within these")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(out, "a new or empty directory", "an existing one", "choose another or remove it")


def _require_images(env: gymnasium.Env, task: str) -> None:
    """ValueError for an environment whose cameras are switched off."""
    _, info = env.reset(seed=DEMOS)
    if not info["frames"]:
        raise ValueError(f"{task}: expected camera images to record, found none (images=False); leave this knob out")


def _require_expert(task: str, episodes: int, kept: int, dropped: int) -> None:
    if dropped > max(20, episodes):
        found = f"found {dropped} failures and {kept} successes"
        raise ValueError(f"{task}: expected an expert that mostly succeeds, {found}; lower the noise")


def _shards(out: Path, settings: dict) -> Path:
    """The directory of finished episodes. ValueError if those there were made with other settings."""
    shards = out.with_name(out.name + ".partial")
    path, text = shards / "settings.json", json.dumps(settings, sort_keys=True)
    if path.exists() and path.read_text() != text:
        raise DataError(shards, f"episodes of {text}", path.read_text(), "remove it, or go on with those settings")
    shards.mkdir(parents=True, exist_ok=True)
    replace_text(path, text)
    return shards


def _play(
    task: str, knobs: dict, noise: float, shards: Path, first: int, episodes: int, workers: int
) -> Iterator[Path | None]:
    """Play seeds from `first` on until `episodes` have succeeded; in order of seeds, the file of each or None.

    A failure adds one seed at the end, so which seeds are played does not depend on who is quicker.
    """
    context = multiprocessing.get_context("spawn")  # a forked simulator would share its parent's rendering context
    with ProcessPoolExecutor(workers, context, _enter, (task, knobs, noise, shards)) as pool:
        seeds = iter(range(first, first + SPAN))
        queue: deque[Future[Path | None]] = deque(pool.submit(_episode, next(seeds)) for _ in range(episodes))
        try:
            while queue:
                path = queue.popleft().result()
                if path is None:
                    queue.append(pool.submit(_episode, next(seeds)))
                yield path
        finally:
            pool.shutdown(cancel_futures=True)


_worker: tuple[gymnasium.Env, Expert, float, int, Path]  # of a worker process, kept between episodes: its own simulator


def _enter(task: str, knobs: dict, noise: float, shards: Path) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    env = envs.make(task, **knobs)
    atexit.register(env.close)  # rendering contexts must go before the interpreter does
    _worker = (env, envs.expert(task), noise, envs.pushed_ticks(task), shards)


def _end_with_parent() -> None:
    """A pool's worker would wait for ever for work from a parent that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only worker processes get here"
    parent.join()
    os._exit(1)


def _episode(seed: int) -> Path | None:
    """Play one seed, or find it played: its file, or None if the expert failed."""
    env, act, noise, pushed, shards = _worker
    path, failed = shards / f"{seed}.npz", shards / f"{seed}.failed"
    if path.exists() or failed.exists():
        return path if path.exists() else None
    episode = play(env, act, seed, noise, pushed)
    if episode is None:
        failed.touch()
        return None
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        np.savez_compressed(file, **episode)
    os.replace(draft, path)
    return path


def _load(path: Path) -> dict[str, Any]:
    """An episode as the writer takes it."""
    with np.load(path) as file:
        arrays = dict(file)
    images = {key.removeprefix("image."): arrays.pop(key) for key in list(arrays) if key.startswith("image.")}
    return {**arrays, "images": images, "task": str(arrays["task"]), "extra": {"seed": int(path.stem)}}


def _progress() -> Progress:
    counts = (MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), BarColumn(), *counts, console=Console(stderr=True))
