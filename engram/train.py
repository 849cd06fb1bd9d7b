"""The training loop: one loop, one file. Windows in, a policy folder out; kill it at any moment and start it again.

K (how far gradients reach, `Design.tbptt`), the window (`ticks`) and the optimizer's cadence (one step per window) are
three things: a window of T ticks with K < T is T/K truncated windows accumulated into one step. The carry goes from
window to window, detached, so a slot's memory continues where it was.
"""

import ctypes
import json
import math
import platform
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from safetensors.torch import save_file
from torch import Tensor

from engram import carry as carries
from engram import device, provenance
from engram.carry import Carry
from engram.data import emphasis
from engram.data.features import FeatureStore
from engram.data.lerobot import Dataset
from engram.data.schedule import ORDER, Episodes, Groups, Schedule, Shuffled
from engram.data.windows import Windows, load
from engram.files import replace_text
from engram.memory.when import Keyframes, writes_of
from engram.policies import checkpoint
from engram.policies.average import Average
from engram.policies.base import Policy
from engram.policies.begin import new_policy
from engram.policies.build import Built
from engram.policies.design import Design, require_whole_windows
from engram.policies.through import Through
from engram.settings import Settings
from engram.tensors import read_tensors
from engram.types import Window

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

CALIBRATION_WINDOWS, CALIBRATION_EPISODES = 8, 64  # at least so many, to centre and scale memory's writes by


def fit(data: Dataset, design: Design, settings: Settings, out: Path, quiet: bool = False) -> dict:
    """From demonstrations to a trained policy in out/checkpoint: builds policy, features and windows, then trains."""
    require_whole_windows(design, settings)
    where = device.found(settings.device)
    about = data.identity()
    refuse_other(out, identity(design, settings, about))  # before minutes of decoding
    policy = new_policy(data, design, settings).to(where)
    windows = make_windows(data, policy, settings, quiet)
    measured = design.notes or settings.start not in ("pretrained", "scratch")
    if isinstance(policy, Through) and policy.memory is not None and design.standardise and not measured:
        calibrate(policy, windows, quiet)
    return train(policy, design, windows, settings, out, about, quiet)


def identity(design: Design, settings: Settings, about: dict) -> dict:
    """What decides the weights of a run; the same for every sitting."""
    return {"settings": settings.identity(), "design": design.identity(), "data": about, "order": ORDER}


def refuse_other(out: Path, expected: dict) -> None:
    """ValueError if `out` holds the checkpoint of a run of another identity."""
    file = out / "checkpoint" / "training.json"
    if file.exists():
        _require_same_run(json.loads(json.dumps(expected)), _read_state(file)["identity"], out)


def keep_pages() -> None:
    """Let this process keep the memory it frees; under glibc, and for good: for programs to call, not for libraries.

    Blocks of many megabytes come and go with every update. glibc maps each one anew (those over 32 MB whatever its
    threshold says), and faulting their pages in took a third of an update here.
    """
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, mmap_max = -1, -4  # malloc.h
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def make_windows(data: Dataset, policy: Built, settings: Settings, quiet: bool = False) -> Windows:
    """The windows that `settings` ask for; videos are decoded, and features computed where the trunk is frozen."""
    kept = keyframes(data) if settings.shown == "keyframes" else None
    lengths = (data.lengths if kept is None else np.array([len(ticks) for ticks in kept]))[data.shown]
    schedule: Schedule | Episodes | Groups | Shuffled
    if settings.loader == "shuffled":
        if carries.select(policy.init(1), "memory/"):
            raise ValueError("loader: expected 'episodic' for a policy with a memory, found 'shuffled'; use 'episodic'")
        ticks = 1 if settings.ticks == "episode" else settings.ticks
        schedule = Shuffled(lengths, settings.slots, ticks, settings.seed)
    elif settings.loader == "group" and settings.ticks != "episode":
        schedule = Groups(lengths, settings.slots, settings.ticks, settings.seed)
    elif settings.ticks == "episode":
        schedule = Episodes(lengths, settings.slots, settings.seed)
    else:
        schedule = Schedule(lengths, settings.slots, settings.ticks, settings.seed, stagger=True)
    with _progress(quiet, "videos") as (bar, task):
        data.prepare(lambda done, total: bar.update(task, completed=done, total=total))
    features = None
    if policy.trunk.frozen_features:
        stay = not settings.workers  # other processes cannot read what is on a GPU
        with _progress(quiet, "features") as (bar, task):
            features = FeatureStore.build(
                data, policy.trunk.features, device=policy.device, stay=stay,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )  # fmt: skip
    weight = emphasis.weights(data.action, data.starts, settings.emphasis) if settings.emphasis else None
    return Windows(data, schedule, policy.chunk, features, weight, kept)


def keyframes(data: Dataset) -> list[np.ndarray]:
    """Of each episode the ticks at which the hand has moved on, int64, by the rule that writes of a bank go by."""
    episodes = [slice(start, start + length) for start, length in zip(data.starts, data.lengths, strict=True)]
    return [writes_of(Keyframes(), data.state[frames], data.frame_index[frames]) for frames in episodes]


def calibrate(policy: Through, windows: Windows, quiet: bool = False) -> None:
    """`policy.calibrate`, twice, on the windows that training begins with: some windows, and some episodes."""
    count, begun, enough = 0, 0, min(CALIBRATION_EPISODES, len(windows.dataset.lengths))
    while count < CALIBRATION_WINDOWS or begun < enough:
        ticks = windows.schedule[count]
        count, begun = count + 1, begun + int((ticks.first & ticks.valid).sum())
    with _progress(quiet, "calibration") as (bar, task):
        for _ in range(2):
            policy.calibrate(windows[step].to(policy.device) for step in bar.track(range(count), task_id=task))


def train(
    policy: Policy, design: Design, windows: Windows, settings: Settings, out: Path, about: dict, quiet: bool = False
) -> dict:
    """Train `policy` on `windows` until `settings.updates`; resumes from `out` if it holds a run of the same settings.

    `about` says what the windows are made of and must be the same for a resume. Writes out/config.json (what was
    asked for, by which code, in how many sittings), out/metrics.jsonl and out/checkpoint (the policy, plus training.*
    for resume). Returns a summary with the frames seen and the seconds spent. Raises ValueError if `out` holds a run
    of other settings, and when a gradient is not finite (the last checkpoint stays as it is).
    """
    out.mkdir(parents=True, exist_ok=True)
    run = Run.resume(policy, design, settings, out, about)
    if run.step == settings.updates:
        return run.summary()
    run.record_sitting()
    policy.train()
    batches = load(windows, run.step, settings.updates, settings.workers)
    with _progress(quiet, out.name) as (bar, task), _board(settings, out, run.step) as run.board:
        bar.update(task, completed=run.step, total=settings.updates)
        for window in _timed(batches, run):
            bar.update(task, completed=run.step + 1, note=f"loss {run.update(window):.4f}")
            if run.step % settings.save == 0 or run.step == settings.updates:
                run.save()
    return run.summary()


class Run:
    """A training run: policy, optimizer, carry and counters, as of `step`."""

    def __init__(self, policy: Policy, design: Design, settings: Settings, out: Path, about: dict):
        self.policy, self.design, self.settings, self.out = policy, design, settings, out
        self.identity = identity(design, settings, about)
        self.names = [name for name, p in policy.named_parameters() if p.requires_grad]
        parameters = dict(policy.named_parameters())
        decay = [parameters[n] for n in self.names if parameters[n].ndim > 1 and "initial" not in n]
        rest = [parameters[n] for n in self.names if parameters[n].ndim <= 1 or "initial" in n]
        groups = [{"params": decay, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.95))
        self.average = Average(policy, settings.average) if settings.average else None
        self.carry: Carry | None = None
        self.board: SummaryWriter | None = None
        self.step = self.frames = self.clipped = 0
        self.seconds = self.peak_gb = 0.0

    @classmethod
    def resume(cls, policy: Policy, design: Design, settings: Settings, out: Path, about: dict) -> "Run":
        """A new run, or the one that stopped in `out`."""
        run = cls(policy, design, settings, out, about)
        folder = out / "checkpoint"
        checkpoint.recover(folder)
        if not folder.exists():
            _require_ours(out)
            (out / "metrics.jsonl").write_text("")
            return run
        state, weights, tensors = _read_training(folder)
        _require_same_run(json.loads(json.dumps(run.identity)), state["identity"], out)
        _require_same_frozen(policy, weights, out)
        policy.load_state_dict(weights)
        run._restore(tensors, state)
        lines = (out / "metrics.jsonl").read_text().splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= run.step]
        replace_text(out / "metrics.jsonl", "".join(line + "\n" for line in kept))
        return run

    def record_sitting(self) -> None:
        """Write out/config.json: everything that was asked for, and by which code this sitting goes on."""
        path = self.out / "config.json"
        before = json.loads(path.read_text())["sittings"] if self.step and path.exists() else []
        code = {"commit": provenance.commit(), "versions": provenance.versions()}
        asked = {"settings": asdict(self.settings), "design": asdict(self.design), "data": self.identity["data"]}
        done_on = {"device": self.policy.device.type, **provenance.gpu(), "threads": torch.get_num_threads()}
        sitting = {"from_update": self.step, **done_on, **code}
        config = asked | {"sittings": [*before, sitting]}
        replace_text(path, json.dumps(config, indent=1) + "\n")

    def update(self, window: Window) -> float:
        """One optimizer step on one window; returns the loss."""
        rate = self._rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        carry = self.policy.init(window.first.shape[0]) if self.carry is None else self.carry
        loss, carry, metrics = self.policy.loss(carry, window.to(self.policy.device))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._parameters(), self.settings.clip)
        if not norm.isfinite():
            do = "lower --settings.lr, or look for what is odd in the data"
            raise ValueError(f"update {self.step + 1}: expected finite gradients, found a norm of {float(norm)}; {do}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.carry = carries.detach(carries.lasting(carry))
        self.step += 1
        if self.average is not None:
            self.average.follow(self.step)
        self.frames += int(window.valid.sum())
        self.clipped += float(norm) > self.settings.clip
        if self.step % self.settings.log == 0 or self.step == 1:
            self._log(rate, norm, metrics)
        return float(loss.detach())

    def save(self) -> None:
        """Write policy and training state as one folder that replaces the previous one when complete."""
        with checkpoint.Staged(self.out / "checkpoint") as folder:
            with nullcontext() if self.average is None else self.average.shown():
                checkpoint.write(self.policy, self.design, folder)
            save_file(self._tensors(), folder / "training.safetensors")
            self.peak_gb = max(self.peak_gb, _peak_gb())
            counters = {"step": self.step, "frames": self.frames, "clipped": self.clipped, "seconds": self.seconds}
            counters["peak_gb"] = self.peak_gb
            (folder / "training.json").write_text(json.dumps({**counters, "identity": self.identity}) + "\n")

    def summary(self) -> dict:
        """Counters of the whole run, over all its sittings."""
        speed = self.frames / max(self.seconds, 1e-9)
        summary = {"updates": self.step, "frames": self.frames, "train_seconds": self.seconds}
        return {**summary, "frames_per_second": speed, "peak_gb": self.peak_gb}

    def _rate(self) -> float:
        s = self.settings
        warm = min(1.0, (self.step + 1) / max(1, s.warmup))
        return s.lr * warm * (0.55 + 0.45 * math.cos(math.pi * self.step / s.updates))

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _log(self, rate: float, norm: Tensor, metrics: dict[str, Tensor]) -> None:
        line = {"step": self.step, "frames": self.frames, "seconds": round(self.seconds, 3), "lr": rate}
        line |= {"grad_norm": float(norm), "clipped": self.clipped / self.step}
        line |= {name: float(value) for name, value in metrics.items()}
        with (self.out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.board is not None:
            for name, value in line.items():
                self.board.add_scalar(name, value, self.step)

    def _tensors(self) -> dict[str, Tensor]:
        """Optimizer state by parameter name, the carry, and the weights where the policy is saved as their average."""
        parameters = dict(self.policy.named_parameters())
        tensors = {f"carry/{key}": value.contiguous() for key, value in (self.carry or {}).items()}
        own = {} if self.average is None else self.average.tensors()
        tensors |= {f"weights/{name}": value for name, value in own.items()}
        for name in self.names:
            state = self.optimizer.state.get(parameters[name], {})
            tensors |= {f"optimizer/{part}/{name}": value for part, value in state.items()}
        return tensors

    def _restore(self, tensors: dict[str, Tensor], state: dict) -> None:
        self.step, self.frames = state["step"], state["frames"]
        self.clipped, self.seconds, self.peak_gb = state["clipped"], state["seconds"], state["peak_gb"]
        parameters = dict(self.policy.named_parameters())
        for key, value in tensors.items():
            if key.startswith("optimizer/"):
                _, part, name = key.split("/", 2)
                where = "cpu" if part == "step" else self.policy.device  # as AdamW keeps them
                self.optimizer.state[parameters[name]][part] = value.to(where)
        if self.average is not None:
            self.average.restore(_under("weights/", tensors))
        self.carry = {key: value.to(self.policy.device) for key, value in _under("carry/", tensors).items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _timed(batches: Iterator[Window], run: Run) -> Iterator[Window]:
    """Adds the time between two windows to the run: loading and learning, not what came before."""
    start = time.perf_counter()
    for window in batches:
        yield window
        now = time.perf_counter()
        run.seconds, start = run.seconds + now - start, now


def _peak_gb() -> float:
    """The most memory that this process has had resident, decoded images it maps included, in GB; 0 where unknown.

    Not getrusage: its maximum includes what the process that started this one held.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return sum(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("VmHWM:"))


def _require_ours(out: Path) -> None:
    """ValueError if `out` belongs to something else, say a model of another library: its config.json would go."""
    config = out / "config.json"
    if config.exists() and "sittings" not in config.read_text(errors="replace"):
        found = "a config.json of something else"
        raise ValueError(f"{out}: expected a new folder or this run, found {found}; choose another folder")


def _require_same_run(expected: dict, found: dict, out: Path) -> None:
    """ValueError naming what differs: settings, design, data or the order in which this version shows them."""
    other = [part for part in expected if expected[part] != found.get(part)]
    if other:
        differs = f"a run with other {', '.join(other)}"
        raise ValueError(f"{out}: expected a new folder or this run, found {differs}; choose another or delete it")


def _require_same_frozen(policy: Policy, weights: dict[str, Tensor], out: Path) -> None:
    """ValueError if what the features were just computed with is not what the run in `out` began with."""
    for name, parameter in policy.named_parameters():
        if not parameter.requires_grad and not torch.equal(parameter.cpu(), weights[name]):
            found = f"others ({name}): the shipped weights have changed since"
            raise ValueError(f"{out}: expected the frozen weights of this run, found {found}; choose another folder")


def _read_training(folder: Path) -> tuple[dict, dict[str, Tensor], dict[str, Tensor]]:
    """Counters and identity, weights, and tensors of the optimizer and the carry. ValueError if there are none."""
    path = folder / "training.json"
    if not path.is_file():
        do = "choose another folder or delete it"
        raise ValueError(f"{folder}: expected a run to go on with, found something else (no training.json); {do}")
    weights, tensors = (read_tensors(folder / f"{name}.safetensors") for name in ("model", "training"))
    return _read_state(path), weights, tensors


def _read_state(path: Path) -> dict:
    try:
        state = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected JSON, found {error}; the run is damaged, choose another folder") from error
    counters = {"step", "frames", "clipped", "seconds", "peak_gb", "identity"}
    if not isinstance(state, dict) or not counters <= set(state):
        found = sorted(state) if isinstance(state, dict) else type(state).__name__
        raise ValueError(
            f"{path}: expected {sorted(counters)}, found {found}; the run is damaged, choose another folder"
        )
    return state


def _board(settings: Settings, out: Path, step: int) -> AbstractContextManager["SummaryWriter | None"]:
    """TensorBoard's writer, which hides what a killed sitting wrote after `step`; None where it is not installed."""
    if not settings.tensorboard:
        return nullcontext()
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        note = "TensorBoard is not installed (pip install 'engram-vla[track]'): metrics are in metrics.jsonl alone"
        Console(stderr=True).print(note, soft_wrap=True)
        return nullcontext()
    return closing(SummaryWriter(str(out / "tensorboard"), purge_step=step + 1))


@contextmanager
def _progress(quiet: bool, name: str) -> Iterator[tuple[Progress, TaskID]]:
    """A progress bar with one task, which moves to and fro until it is told of how many."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    console = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), disable=quiet, console=console) as bar:
        yield bar, bar.add_task(name, total=None, note="")
