"""The training loop: one loop, one file. Windows in, a policy folder out; kill it at any moment and start it again.

K (how far gradients reach, `Design.tbptt`), the window (`ticks`) and the optimizer's cadence (one step per window) are
three things: a window of T ticks with K < T is T/K truncated windows accumulated into one step. The carry goes from
window to window, detached, so a slot's memory continues where it was.
"""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor

from engram import carry as carries
from engram.carry import Carry
from engram.data.windows import Windows, load
from engram.policies import checkpoint
from engram.policies.base import Policy
from engram.policies.build import Design
from engram.types import Window


@dataclass(frozen=True)
class Settings:
    """How long and how fast to learn.

    updates   optimizer steps; warmup of them at the start, then a cosine down to a tenth
    lr        peak learning rate of AdamW; weight_decay applies to matrices alone, never to the initial memory
    clip      gradient norm bound (the share of clipped steps is logged)
    save      updates between two checkpoints; log: between two lines of metrics
    workers   loader processes (batches do not depend on it)
    """

    updates: int
    lr: float = 1e-3
    warmup: int = 50
    weight_decay: float = 0.01
    clip: float = 1.0
    save: int = 200
    log: int = 20
    workers: int = 0

    def __post_init__(self):
        if self.updates < 1:
            raise ValueError(f"updates: expected at least 1, found {self.updates}")


def train(policy: Policy, design: Design, windows: Windows, settings: Settings, out: Path, quiet: bool = False) -> dict:
    """Train `policy` on `windows` until `settings.updates`; resumes from `out` if it holds a run of the same settings.

    Writes out/metrics.jsonl and out/checkpoint (the policy, plus training.* for resume). Returns a summary with the
    frames seen and the seconds spent. Raises ValueError if `out` holds a run of other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    run = Run.resume(policy, design, settings, out, windows.describe())
    policy.train()
    batches = load(windows, run.step, settings.updates, settings.workers)
    with _progress(quiet) as bar:
        task = bar.add_task(out.name, total=settings.updates, completed=run.step, loss=math.nan)
        for window in _timed(batches, run):
            loss = run.update(window)
            bar.update(task, completed=run.step, loss=loss)
            if run.step % settings.save == 0 or run.step == settings.updates:
                run.save()
    return run.summary()


class Run:
    """A training run: policy, optimizer, carry and counters, as of `step`."""

    def __init__(self, policy: Policy, design: Design, settings: Settings, out: Path, about: dict):
        self.policy, self.design, self.settings, self.out = policy, design, settings, out
        self.identity = {"settings": {**asdict(settings), "workers": 0}, "design": asdict(design), "data": about}
        self.names = [name for name, p in policy.named_parameters() if p.requires_grad]
        parameters = dict(policy.named_parameters())
        decay = [parameters[n] for n in self.names if parameters[n].ndim > 1 and "initial" not in n]
        rest = [parameters[n] for n in self.names if parameters[n].ndim <= 1 or "initial" in n]
        groups = [{"params": decay, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.95))
        self.carry: Carry | None = None
        self.step = self.frames = self.clipped = 0
        self.seconds = 0.0

    @classmethod
    def resume(cls, policy: Policy, design: Design, settings: Settings, out: Path, about: dict) -> "Run":
        """A new run, or the one that stopped in `out`."""
        run = cls(policy, design, settings, out, about)
        folder = out / "checkpoint"
        if not (folder / "training.json").is_file():
            (out / "metrics.jsonl").write_text("")
            return run
        state = json.loads((folder / "training.json").read_text())
        if state["identity"] != json.loads(json.dumps(run.identity)):
            raise ValueError(f"{out}: holds a run with other settings, design or data; choose another folder or delete it")
        policy.load_state_dict(load_file(folder / "model.safetensors"))
        run._restore(load_file(folder / "training.safetensors"), state)
        lines = (out / "metrics.jsonl").read_text().splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= run.step]
        (out / "metrics.jsonl").write_text("".join(line + "\n" for line in kept))
        return run

    def update(self, window: Window) -> float:
        """One optimizer step on one window; returns the loss (read from the device only when it is logged)."""
        rate = self._rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        carry = self.policy.init(window.first.shape[0]) if self.carry is None else self.carry
        loss, carry, metrics = self.policy.loss(carry, window)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._parameters(), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.carry = carries.detach(carries.lasting(carry))
        self.step += 1
        self.frames += int(window.valid.sum())
        self.clipped += float(norm) > self.settings.clip
        if self.step % self.settings.log == 0 or self.step == 1:
            self._log(rate, norm, metrics)
        return float(loss.detach())

    def save(self) -> None:
        """Write policy and training state as one folder that replaces the previous one when complete."""
        with checkpoint.staged(self.out / "checkpoint") as folder:
            checkpoint.write(self.policy, self.design, folder)
            save_file(self._tensors(), folder / "training.safetensors")
            counters = {"step": self.step, "frames": self.frames, "clipped": self.clipped, "seconds": self.seconds}
            (folder / "training.json").write_text(json.dumps({**counters, "identity": self.identity}) + "\n")

    def summary(self) -> dict:
        """Counters of the whole run, over all its sittings."""
        speed = self.frames / max(self.seconds, 1e-9)
        return {"updates": self.step, "frames": self.frames, "train_seconds": self.seconds, "frames_per_second": speed}

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

    def _tensors(self) -> dict[str, Tensor]:
        """Optimizer state by parameter name, and the carry."""
        parameters = dict(self.policy.named_parameters())
        tensors = {f"carry/{key}": value.contiguous() for key, value in (self.carry or {}).items()}
        for name in self.names:
            state = self.optimizer.state.get(parameters[name], {})
            tensors |= {f"optimizer/{part}/{name}": value for part, value in state.items()}
        return tensors

    def _restore(self, tensors: dict[str, Tensor], state: dict) -> None:
        self.step, self.frames = state["step"], state["frames"]
        self.clipped, self.seconds = state["clipped"], state["seconds"]
        parameters = dict(self.policy.named_parameters())
        for key, value in tensors.items():
            if key.startswith("optimizer/"):
                _, part, name = key.split("/", 2)
                self.optimizer.state[parameters[name]][part] = value
        self.carry = {key.removeprefix("carry/"): v for key, v in tensors.items() if key.startswith("carry/")}


def _timed(batches: Iterator[Window], run: Run) -> Iterator[Window]:
    """Adds the time between two windows to the run: loading and learning, not what came before."""
    start = time.perf_counter()
    for window in batches:
        yield window
        now = time.perf_counter()
        run.seconds, start = run.seconds + now - start, now


def _progress(quiet: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.4f}"))
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), disable=quiet)
