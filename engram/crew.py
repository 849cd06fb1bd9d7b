"""Train several policies side by side, one process each: small models leave most of a machine idle one by one."""

import json
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from engram import device, provenance
from engram.data.lerobot import Dataset
from engram.policies.design import Design
from engram.settings import Settings
from engram.train import fit, keep_pages

CONTEXT = multiprocessing.get_context("spawn")
ROOM_GB = 2.5  # of memory for each training unless said otherwise: the quickstart's take 2.0
MEMINFO = Path("/proc/meminfo")
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


def fit_all(jobs: Mapping[str, Job], room_gb: float = ROOM_GB) -> None:
    """Train every job, `at_once(room_gb)` of them at a time, in their order; each resumes where it was stopped.

    After all others are done, raises ValueError with what a job found wrong in its input, or TrainingError naming the
    jobs that failed otherwise; what they printed stands above.
    """
    crew: dict[str, BaseProcess] = {}
    refusals, most = CONTEXT.SimpleQueue(), at_once(room_gb)
    try:
        with _bars(jobs) as bar:
            while len(crew) < len(jobs) or any(process.is_alive() for process in crew.values()):
                _start_or_wait(jobs, crew, refusals, most)
                for task, job in zip(bar.task_ids, jobs.values(), strict=True):
                    bar.update(task, completed=_step(job))
    finally:
        for process in crew.values():
            process.terminate()
        for process in crew.values():
            process.join()
    sentences = []
    while not refusals.empty():
        sentences.append(refusals.get())
    if sentences:
        raise ValueError("; ".join(dict.fromkeys(sentences)))  # one data set may be wrong for all
    failed = [name for name, process in crew.items() if process.exitcode]
    if failed:
        raise TrainingError(f"expected every training to finish, found {', '.join(failed)} ended early; see above")


def at_once(room_gb: float = ROOM_GB) -> int:
    """How many trainings fit side by side: a core and `room_gb` of the memory that is free now for each, at least one;
    one on a GPU, whose memory each would take to be free."""
    if device.found("auto").type != "cpu":
        return 1
    lines = MEMINFO.read_text().splitlines() if MEMINFO.is_file() else []
    free = [int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("MemAvailable:")]
    room = int(free[0] / room_gb) if free else provenance.cores()
    return max(1, min(provenance.cores(), room))


def _start_or_wait(jobs: Mapping[str, Job], crew: dict[str, BaseProcess], refusals: SimpleQueue, most: int) -> None:
    """Start the next job if there is room for it, else wait a moment for some."""
    running = [process for process in crew.values() if process.is_alive()]
    if len(crew) < len(jobs) and len(running) < most:
        name = list(jobs)[len(crew)]
        crew[name] = CONTEXT.Process(target=_train, args=(jobs[name], refusals))  # no daemon: those have no workers
        with _deaf():
            crew[name].start()
    elif running:
        running[0].join(POLL)


@contextmanager
def _deaf() -> Iterator[None]:
    """What is started in here does not hear Ctrl-C, which goes to all processes: the parent ends its crew."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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


def trained_by(out: Path) -> list[str]:
    """Short commits of the code that trained in the folder `out`, each once, in the order of its sittings."""
    sittings = json.loads((out / "config.json").read_text())["sittings"]
    return list(dict.fromkeys(provenance.short(sitting["commit"]) for sitting in sittings))


def _train(job: Job, refusals: SimpleQueue) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Always one: small models gain little from more, and sums round otherwise with another number of threads, so that
    # a training that goes on beside fewer others would not end in the same weights.
    torch.set_num_threads(1)
    try:
        keep_pages()
        fit(Dataset(*job.data), job.design, job.settings, job.out, quiet=True)
    except (ValueError, OSError) as error:  # wrong input: one sentence in the parent, not a traceback here
        refusals.put(str(error))
        sys.exit(2)


def _end_with_parent() -> None:
    """Ends this process when its parent is gone, however that ended: two trainings must never share a folder."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "started by fit_all"
    parent.join()
    signal.raise_signal(signal.SIGTERM)


def _bars(jobs: Mapping[str, Job]) -> Progress:
    """A bar per job."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
    )
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
    for name, job in jobs.items():
        bar.add_task(f"training {name}", total=job.settings.updates)
    return bar


def _step(job: Job) -> int:
    """The last update in a job's metrics; 0 before there is one."""
    metrics = job.out / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    whole = [line for line in lines if line.endswith("}")]
    return json.loads(whole[-1])["step"] if whole else 0
