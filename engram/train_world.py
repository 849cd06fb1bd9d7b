"""Stage 1: a world model learns from demonstrations what follows what. Kill it at any moment and start it again.

Latents are encoded once and kept. What an update shows, and all its noise, is a function of seed and step
(engram/draws.py): a run that was stopped goes on to the same weights.

Legend: B rows, K frames of the future, C channels of a latent, H W its cells, F frames of the data set.
"""

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from safetensors.torch import save_file
from torch import Tensor

from engram import device, draws, provenance
from engram.data.features import FeatureStore
from engram.data.futures import futures
from engram.data.lerobot import Dataset
from engram.files import replace_text
from engram.policies.checkpoint import Staged, recover
from engram.settings import WorldSettings
from engram.tensors import fill, read_tensors
from engram.types import Observation
from engram.world import checkpoint
from engram.world.begin import published, tiny
from engram.world.model import Outlook, World

FITTED = 512  # pictures that the latents of a tiny model are fitted on
SCORED = 4  # presents of each held-out episode that are predicted from


class Score(NamedTuple):
    """How well futures are foreseen, in dB of peak signal to noise over all pixels of all their frames.

    predicted  a sample of the world model's
    expected   what it sees from pure noise, in one step: near the mean of what may come, the best guess in this measure
    repeated   the present frame, again and again: what a prediction has to beat
    coded      the true future, encoded and decoded: what a prediction cannot exceed
    """

    predicted: float
    expected: float
    repeated: float
    coded: float


def new_tiny(data: Dataset, outlook: Outlook, held_out: Sequence[int] = (), factor=8, channels=16, seed=0) -> World:
    """A tiny world model (engram/world/begin.py) whose latents are fitted on the episodes that are not held out."""
    frames = _shown(data, held_out)
    some = frames[np.linspace(0, len(frames) - 1, min(FITTED, len(frames))).astype(np.int64)]
    return tiny(outlook, torch.from_numpy(data.images(outlook.camera, some)), factor, channels, seed)


def last_episodes(data: Dataset, count: int) -> range:
    """The last `count` episodes of a data set. ValueError if nothing would be left to learn from."""
    episodes = len(data.lengths)
    if not 0 <= count < episodes:
        raise ValueError(f"held_out: expected 0 to {episodes - 1} of {episodes} episodes, found {count}; keep some")
    return range(episodes - count, episodes)


def begin_world(
    data: Dataset,
    held_out: Sequence[int],
    camera: str,
    frames: int,
    stride: int,
    start: str | None,
    text: Path | None,
    zoom: int,
    seed: int,
) -> World:
    """What stage 1 begins with for a data set: a tiny world model, or the published one that `start` names."""
    outlook = Outlook(camera, data.spec.height, data.spec.width, frames, stride)
    if start is not None:
        return published(start, outlook, text, zoom, seed)
    if text is not None or zoom != 1:
        do = "leave them out: a tiny model learns its words and has no zoom"
        raise ValueError(f"text, zoom: expected beside a published model (--start), found without; {do}")
    return new_tiny(data, outlook, held_out, seed=seed)


def train_world(
    world: World,
    data: Dataset,
    held_out: Sequence[int],
    settings: WorldSettings,
    out: Path,
    quiet: bool = False,
) -> dict:
    """Train `world` on the episodes of `data` that are not held out; returns and writes out/summary.json.

    Resumes from `out` if it holds a run of the same settings, data and kind of model. Writes out/plan.json (these),
    out/metrics.jsonl and out/checkpoint (the model, and training.* for resume). The summary has the updates, the
    seconds spent and, if episodes are held out, their `Score`. ValueError for a run of another plan in `out`, data
    that the model does not fit, and a gradient that is not finite.
    """
    held_out = sorted(held_out)
    clips = Clips.plan(world.outlook, data, held_out)
    plan = {"settings": settings.identity(), "world": checkpoint.about(world), "data": data.identity()}
    provenance.settle(out, plan | {"held_out": held_out})
    run = _Run(world.to(device.found(settings.device)).learn(True), settings, out)
    run.resume()
    if run.step < settings.updates:
        with _progress(quiet, "latents") as (bar, task):
            clips.encode(world, lambda done, total: bar.update(task, completed=done, total=total))
        with _progress(quiet, out.name) as (bar, task):
            for _ in range(run.step, settings.updates):
                loss = run.update(clips)
                bar.update(task, completed=run.step, total=settings.updates, note=f"loss {loss:.4f}")
                if run.step % settings.save == 0 or run.step == settings.updates:
                    run.save()
    summary = {"updates": run.step, "seconds": round(run.seconds, 3)}
    if held_out:
        summary |= score(world, data, held_out)._asdict()
    about = {"commit": provenance.commit(), "versions": provenance.versions(), "machine": provenance.machine()}
    replace_text(out / "summary.json", json.dumps(summary | about, indent=1) + "\n")
    return summary


class Clips:
    """Presents and their futures, as latents.

    frames  int64 (F',)   presents: all frames that are not held out
    ahead   int64 (F, K)  what follows each frame of the data set
    """

    def __init__(self, data: Dataset, camera: int, frames: np.ndarray, ahead: np.ndarray):
        self.data, self.camera, self.frames = data, camera, torch.from_numpy(frames)
        self.ahead = torch.from_numpy(ahead)
        self.latents: FeatureStore | None = None

    @classmethod
    def plan(cls, outlook: Outlook, data: Dataset, held_out: Sequence[int]) -> "Clips":
        """Those of a data set. ValueError if it lacks the camera, its size, or an episode long enough."""
        camera, found = _camera(outlook, data), (data.spec.height, data.spec.width)
        if found != (outlook.height, outlook.width):
            do = "use data of that size, or a world model for this one"
            raise ValueError(f"pictures: expected {outlook.height} x {outlook.width} pixels, found {found}; {do}")
        return cls(data, camera, _shown(data, held_out), futures(data.lengths, outlook.frames, outlook.stride))

    def encode(self, world: World, progress=None) -> None:
        """Encode all frames, once."""

        def encode(obs: Observation) -> Float[Tensor, "B C H W"]:
            return world.see(obs.images[:, self.camera])

        where = world.added.device
        self.latents = FeatureStore.build(self.data, encode, batch=16, progress=progress, device=where)

    def rows(
        self, key_B: Int64[Tensor, "B"]
    ) -> tuple[Float[Tensor, "B K C H W"], Float[Tensor, "B C H W"], tuple[str, ...]]:
        """Futures, presents and instructions that keys choose."""
        assert self.latents is not None, "encode first"
        frame_B = self.frames[draws.integers(key_B, len(self.frames))]
        text = self.data.instructions(frame_B.numpy())
        return self.latents[self.ahead[frame_B]], self.latents[frame_B], text


@torch.no_grad()
def score(world: World, data: Dataset, episodes: Sequence[int], rows: int = 8) -> Score:
    """How well `world` foresees some episodes, from SCORED presents of each whose whole future is there."""
    outlook = world.outlook
    horizon, ahead = outlook.frames * outlook.stride, futures(data.lengths, outlook.frames, outlook.stride)
    places = [data.starts[e] + np.linspace(0, data.lengths[e] - 1 - horizon, SCORED).astype(np.int64) for e in episodes]
    frames = np.unique(np.concatenate(places))
    errors = [_errors(world, data, part, ahead[part]) for part in np.array_split(frames, math.ceil(len(frames) / rows))]
    return Score(*(-10 * math.log10(max(float(error), 1e-10)) for error in np.sum(errors, 0) / len(frames)))


def _errors(world: World, data: Dataset, frame_B: np.ndarray, ahead_BK: np.ndarray) -> np.ndarray:
    """Mean squared errors of `Score`, float64 (4,), summed over rows; pixels in [0, 1]."""
    camera, where = world.outlook.camera, world.added.device
    now, truth = (torch.from_numpy(data.images(camera, frames)).to(where) for frames in (frame_B, ahead_BK))
    key_B = draws.mix(torch.from_numpy(frame_B).to(where))
    known = (world.see(now), data.instructions(frame_B), key_B)
    latents = (world.sample(*known), world.expect(*known), world.codec.encode(truth))
    predicted, expected, coded = (world.codec.decode(latents_BKCHW) for latents_BKCHW in latents)
    guesses = (predicted, expected, now.unsqueeze(1), coded)
    return np.array([float(((guess.double() - truth) / 255).square().mean((1, 2, 3, 4)).sum()) for guess in guesses])


class _Run:
    """A training run: the model, its optimizer and counters, as of `step`."""

    def __init__(self, world: World, settings: WorldSettings, out: Path):
        self.world, self.settings, self.out = world, settings, out
        self.learned = {name: p for name, p in world.named_parameters() if p.requires_grad}
        decayed, rest = ([p for p in self.learned.values() if (p.ndim > 1) == many] for many in (True, False))
        groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.95), fused=True)
        self.step, self.seconds = 0, 0.0
        if settings.recompute:
            world.unet.enable_gradient_checkpointing()

    def resume(self) -> None:
        """Go on where the run in `out` stopped, if there is one."""
        folder, metrics = self.out / "checkpoint", self.out / "metrics.jsonl"
        recover(folder)
        if not folder.exists():
            metrics.write_text("")
            return
        fill(self.world, read_tensors(folder / "model.safetensors"), folder)
        for key, value in read_tensors(folder / "training.safetensors").items():
            part, name = key.split("/", 1)
            self.optimizer.state[self.learned[name]][part] = value.to(self.world.added.device)
        state = json.loads((folder / "training.json").read_text())
        self.step, self.seconds = state["step"], state["seconds"]
        lines = [line for line in metrics.read_text().splitlines() if line.endswith("}")]
        replace_text(metrics, "".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= self.step))

    def update(self, clips: Clips) -> float:
        """One optimizer step; returns the loss."""
        start, rate = time.perf_counter(), self._rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        seed = torch.tensor(self.settings.seed)
        key_B = draws.mix(seed, self.step, torch.arange(self.settings.rows))
        latents_BKCHW, now_BCHW, text = clips.rows(draws.mix(key_B, 0))
        where = self.world.added.device
        latents_BKCHW, now_BCHW = latents_BKCHW.to(where), now_BCHW.to(where)
        with torch.autocast(where.type, torch.bfloat16, enabled=self.settings.bfloat16):
            loss = self.world.loss(latents_BKCHW, now_BCHW, text, draws.mix(key_B, 1).to(where))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.learned.values(), self.settings.clip)
        if not norm.isfinite():
            do = "lower lr, or look for what is odd in the data"
            raise ValueError(f"update {self.step + 1}: expected finite gradients, found a norm of {float(norm)}; {do}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.seconds += time.perf_counter() - start
        if self.step % self.settings.log == 0 or self.step == 1:
            line = {"step": self.step, "seconds": round(self.seconds, 3), "lr": rate, "grad_norm": float(norm)}
            with (self.out / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line | {"loss": float(loss.detach())}) + "\n")
        return float(loss.detach())

    def save(self) -> None:
        """Write model and training state as one folder that replaces the previous one when complete."""
        with Staged(self.out / "checkpoint") as folder:
            checkpoint.write(self.world, folder)
            state = {name: self.optimizer.state.get(p, {}) for name, p in self.learned.items()}
            tensors = {f"{part}/{name}": value for name, parts in state.items() for part, value in parts.items()}
            save_file(tensors, folder / "training.safetensors")
            (folder / "training.json").write_text(json.dumps({"step": self.step, "seconds": self.seconds}) + "\n")

    def _rate(self) -> float:
        s = self.settings
        warm = min(1.0, (self.step + 1) / max(1, s.warmup))
        return s.lr * warm * (0.55 + 0.45 * math.cos(math.pi * self.step / s.updates))


def _camera(outlook: Outlook, data: Dataset) -> int:
    """Where the camera is among those of the data. ValueError if it is not."""
    if outlook.camera not in data.spec.cameras:
        raise ValueError(f"camera: expected one of {data.spec.cameras}, found {outlook.camera!r}; name one of them")
    return data.spec.cameras.index(outlook.camera)


def _shown(data: Dataset, held_out: Sequence[int]) -> np.ndarray:
    """Frames of the episodes that are not held out, int64. ValueError for episodes that are not there, or none left."""
    count = len(data.lengths)
    if not set(held_out) <= set(range(count)) or len(set(held_out)) == count:
        do = "hold out fewer, or others"
        raise ValueError(f"held out: expected some of the episodes 0 to {count - 1}, found {sorted(held_out)}; {do}")
    out_E = np.isin(np.arange(count), list(held_out))
    return np.flatnonzero(~np.repeat(out_E, data.lengths))


@contextmanager
def _progress(quiet: bool, name: str) -> Iterator[tuple[Progress, TaskID]]:
    """A progress bar with one task."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, TimeElapsedColumn(), disable=quiet, console=Console(stderr=True)) as bar:
        yield bar, bar.add_task(name, total=None, note="")
