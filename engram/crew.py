"""Train several policies side by side, one process each: small models leave most of a machine idle one by one."""

import json
import multiprocessing
import os
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engram.data.lerobot import Dataset
from engram.policies.design import Design
from engram.settings import Settings
from engram.train import fit

POLL = 0.5  # seconds between two looks at the metrics of the others


@dataclass(frozen=True)
class Job:
    """One training: on which data sets, what, how, and where it goes."""

    data: tuple[Path, ...]
    design: Design
    settings: Settings
    out: Path


class TrainingError(RuntimeError):
    """A training process ended before its policy was trained."""


def fit_all(jobs: Mapping[str, Job]) -> None:
    """Train every job, one to a core at a time; each resumes where it was stopped.

    Raises TrainingError naming the jobs that failed, after those beside them are done; what they printed stands above.
    """
    # Blocks of many megabytes come and go with every update. glibc would hand each back to the system and have all its
    # pages faulted in again, a quarter of the time of an update here; the children read this when they start.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**32))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**33))
    cores, names = os.cpu_count() or 1, list(jobs)
    for start in range(0, len(names), cores):
        some = {name: jobs[name] for name in names[start : start + cores]}
        _side_by_side(some, threads=max(1, cores // len(some)))


def _side_by_side(jobs: Mapping[str, Job], threads: int) -> None:
    context = multiprocessing.get_context("spawn")
    crew = {name: context.Process(target=_train, args=(job, threads), daemon=True) for name, job in jobs.items()}
    for process in crew.values():
        process.start()
    try:
        _watch(crew, jobs)
    finally:
        for process in crew.values():
            process.terminate()
            process.join()
    failed = [name for name, process in crew.items() if process.exitcode]
    if failed:
        raise TrainingError(f"expected every training to finish, found {', '.join(failed)} ended early; see above")


def trained(job: Job) -> bool:
    """Whether the job is done."""
    return counters(job)["updates"] == job.settings.updates


def counters(job: Job) -> dict:
    """Updates, frames and seconds of the job's last checkpoint, over all its sittings; zeros before there is one."""
    file = job.out / "checkpoint" / "training.json"
    state = json.loads(file.read_text()) if file.exists() else {"step": 0, "frames": 0, "seconds": 0.0}
    speed = state["frames"] / max(state["seconds"], 1e-9)
    return {
        "updates": state["step"], "frames": state["frames"], "train_seconds": state["seconds"],
        "frames_per_second": speed,
    }  # fmt: skip


def _train(job: Job, threads: int) -> None:
    torch.set_num_threads(threads)
    fit(Dataset(*job.data), job.design, job.settings, job.out, quiet=True)


def _watch(crew: Mapping[str, BaseProcess], jobs: Mapping[str, Job]) -> None:
    """A bar per job, read off its metrics, until all processes have ended."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        tasks = {name: bar.add_task(f"training {name}", total=job.settings.updates) for name, job in jobs.items()}
        while any(process.is_alive() for process in crew.values()):
            next(p for p in crew.values() if p.is_alive()).join(POLL)
            for name, task in tasks.items():
                bar.update(task, completed=_step(jobs[name].out / "metrics.jsonl"))


def _step(metrics: Path) -> int:
    """The last update in a file of metrics; 0 before there is one."""
    if not metrics.exists():
        return 0
    steps = [line.split(",", 1)[0] for line in metrics.read_text().splitlines() if line.endswith("}")]
    return int(steps[-1].split(":")[1]) if steps else 0
