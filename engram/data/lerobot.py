"""Data sets in the LeRobotDataset v3.0 layout: checked when opened, random access to every frame afterwards."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engram.data import pixels
from engram.data.layout import DataError
from engram.data.pixels import Progress
from engram.data.reader import Part, read
from engram.data.video import VideoSettings
from engram.data.writer import Writer

__all__ = ["DataError", "Dataset", "Episode", "VideoSettings", "Writer"]


@dataclass(frozen=True)
class Episode:
    """Frames `start .. start + length - 1` of a data set, told to do `task`."""

    start: int
    length: int
    task: str


class Dataset:
    """One data set, or several of the same spec one after the other. Frames are numbered 0 .. F-1 over all of them.

    One that is named several times is there once, and shown so many times as often.

    Legend: E episodes, S episodes shown in a pass, F frames, P proprioception, A action, H W pixels.

    robot             the arm, as the first data set calls it
    lengths, starts   int64   (E,)    ticks of each episode, and the frame it begins at
    shown             int64   (S,)    episodes of one pass: each once, or as many times as its data set is named
    state             float32 (F, P)
    action            float32 (F, A)  the expert's
    previous_action   float32 (F, A)  executed before the tick; the row before where the data do not say
    frame_index       int64   (F,)    control tick within the episode
    task_index        int64   (F,)    into `tasks`

    DataError (a ValueError) when a directory is not a complete data set, or its spec is not that of the first.
    """

    def __init__(self, root: Path | str, *more: Path | str):
        self.roots = tuple(Path(path) for path in (root, *more))
        times = Counter(self.roots)
        self._parts = [read(path) for path in times]
        self.spec, self.robot = self._parts[0].spec, self._parts[0].robot
        for part in self._parts[1:]:
            self.spec.require(part.spec, str(part.root))
        self.tasks = tuple(dict.fromkeys(task for part in self._parts for task in part.tasks))
        self.lengths = np.concatenate([part.lengths for part in self._parts])
        self.starts = np.cumsum(self.lengths) - self.lengths
        sizes = [len(part.lengths) for part in self._parts]
        self.shown = np.repeat(np.arange(len(self.lengths)), np.repeat(list(times.values()), sizes))
        self.state = np.concatenate([part.state for part in self._parts])
        self.action = np.concatenate([part.action for part in self._parts])
        self.previous_action = np.concatenate([part.previous_action for part in self._parts])
        self.frame_index = np.concatenate([part.frame_index for part in self._parts])
        self.task_index = np.concatenate([self._task_index(part) for part in self._parts])
        self._offsets = np.cumsum([0, *(len(part.action) for part in self._parts)])
        self._images: dict[tuple[int, str], NDArray[np.uint8]] = {}

    def __reduce__(self) -> tuple:
        """A worker process opens the files itself: nothing but the paths travels."""
        return Dataset, self.roots

    @property
    def frames(self) -> int:
        """Number of frames F."""
        return len(self.action)

    @property
    def episodes(self) -> list[Episode]:
        """All episodes, in order."""
        places = zip(self.starts.tolist(), self.lengths.tolist(), strict=True)
        return [Episode(start, length, self.tasks[self.task_index[start]]) for start, length in places]

    def identity(self) -> dict:
        """Which data these are, in which order: counts for people, and a digest of all but the pixels."""
        digest = hashlib.blake2b("\0".join(self.tasks).encode(), digest_size=16)
        for values in (self.lengths, self.task_index, self.state, self.action, self.previous_action):
            digest.update(values.tobytes())
        about = {"frames": self.frames, "episodes": len(self.lengths), "tasks": self.tasks}
        if len(self.shown) > len(self.lengths):
            digest.update(self.shown.tobytes())
            about["shown"] = len(self.shown)
        return {**about, "digest": digest.hexdigest()}

    def prepare(self, progress: Progress | None = None) -> None:
        """Decode all videos that are not in the cache yet, `progress(frames done, frames in all)` on the way."""
        total, done = self.frames * len(self.spec.cameras), 0
        for index, part in enumerate(self._parts):
            for camera in self.spec.cameras:
                report = None if progress is None else lambda n, _, done=done: progress(done + n, total)
                self._images[index, camera] = pixels.images(part, camera, report)
                done += len(part.action)
                if progress is not None:
                    progress(done, total)

    def images(self, camera: str, frames: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.uint8]:
        """Images of one camera: frames int64 (...) -> uint8 (..., H, W, 3); all of them by default."""
        if camera not in self.spec.cameras:
            raise ValueError(f"expected a camera of {self.spec.cameras}, found {camera!r}; name one of them")
        if len(self._parts) == 1:
            return self._of(0, camera)[frames]
        frames = np.arange(self.frames)[frames] if isinstance(frames, slice) else frames
        out = np.empty((*frames.shape, self.spec.height, self.spec.width, 3), np.uint8)
        which = np.searchsorted(self._offsets, frames, side="right") - 1
        for index in np.unique(which).tolist():
            mine = which == index
            out[mine] = self._of(index, camera)[frames[mine] - self._offsets[index]]
        return out

    def pixels(self, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images of all cameras in the order of the spec: frames int64 (...) -> uint8 (..., C, H, W, 3)."""
        return np.stack([self.images(camera, frames) for camera in self.spec.cameras], axis=-4)

    def instructions(self, frames: NDArray[np.int64]) -> tuple[str, ...]:
        """What the robot is told at each of `frames`, int64 (...), row-major."""
        return tuple(self.tasks[i] for i in self.task_index[frames].reshape(-1).tolist())

    def _of(self, index: int, camera: str) -> NDArray[np.uint8]:
        if (index, camera) not in self._images:
            self._images[index, camera] = pixels.images(self._parts[index], camera)
        return self._images[index, camera]

    def _task_index(self, part: Part) -> NDArray[np.int64]:
        return np.array([self.tasks.index(task) for task in part.tasks], np.int64)[part.task_index]
