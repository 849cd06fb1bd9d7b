"""Training windows: the frames that a schedule names, as tensors.

Legend: B slots, T ticks, N chunk length, A action.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from engram.data.features import FeatureStore
from engram.data.lerobot import Dataset
from engram.data.schedule import Episodes, Groups, Schedule, Shuffled
from engram.types import Observation, Window


class Windows(TorchDataset):
    """`windows[step]` is the window of a step: a pure function of the step.

    Args:
        dataset: frames and images.
        schedule: which of them; its episodes are those that the data set shows in a pass (`Dataset.shown`).
        chunk: N, actions per target: those of the tick and the N-1 after it, the last repeated past the end.
        features: what a frozen encoder makes of the frames. Windows then carry features, and their images are zeros
            of the right shape that occupy one byte: nobody needs them and moving them would cost most of the time.
        weight: float32 (F,), how much each frame counts in the loss; None: all alike.
        kept: for each episode of the data set the ticks that are shown, int64, ascending; None: all. The schedule then
            counts these. Targets are the actions of all ticks.
    """

    def __init__(
        self,
        dataset: Dataset,
        schedule: Schedule | Episodes | Groups | Shuffled,
        chunk: int,
        features: FeatureStore | None = None,
        weight: np.ndarray | None = None,
        kept: Sequence[np.ndarray] | None = None,
    ):
        if chunk < 1:
            raise ValueError(f"expected a chunk of at least one action, found {chunk}; raise it")
        self.dataset, self.schedule, self.chunk, self.features, self.weight = dataset, schedule, chunk, features, weight
        self.kept = kept

    def __getitem__(self, step: int) -> Window:
        """The window of `step` >= 0."""
        ticks = self.schedule[step].trimmed()
        episode = self.dataset.shown[ticks.episode]
        start, length = self.dataset.starts[episode], self.dataset.lengths[episode]
        frame = start + (ticks.tick if self.kept is None else self._in_episode(episode, ticks.tick))
        ahead = frame[..., None] + np.arange(self.chunk)
        last = (start + length - 1)[..., None]
        target = self.dataset.action[np.minimum(ahead, last)]
        index = torch.from_numpy(frame)
        return Window(
            obs=self._observation(frame),
            target=torch.from_numpy(target),
            target_ok=torch.from_numpy((ahead <= last) & ticks.valid[..., None]),
            first=torch.from_numpy(ticks.first),
            valid=torch.from_numpy(ticks.valid),
            frame=index,
            features=None if self.features is None else self.features[index],
            weight=None if self.weight is None else torch.from_numpy(self.weight[frame]),
        )

    def _in_episode(self, episode: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Ticks of the episode, of places among those shown."""
        assert self.kept is not None
        pairs = zip(episode.flat, place.flat, strict=True)
        return np.array([self.kept[e][p] for e, p in pairs], np.int64).reshape(place.shape)

    def _observation(self, frame: np.ndarray) -> Observation:
        data, spec = self.dataset, self.dataset.spec
        shape = (*frame.shape, len(spec.cameras), spec.height, spec.width, 3)
        skip = self.features is not None
        images = torch.zeros(1, dtype=torch.uint8).expand(shape) if skip else torch.from_numpy(data.pixels(frame))
        tick = torch.from_numpy(data.frame_index[frame])
        return Observation(
            images=images,
            proprio=torch.from_numpy(data.state[frame]),
            instruction=data.instructions(frame),
            tick=tick,
            capture_tick=tick.clone(),
            action=torch.from_numpy(data.previous_action[frame]),
        )


def load(windows: Windows, start: int, stop: int, workers: int = 0) -> Iterator[Window]:
    """The windows of steps start .. stop-1 in order, made by `workers` processes (0: in this one).

    The same bits for any number of workers and any `start`: a window depends on its step alone.
    """
    if workers and windows.features is None:
        windows.dataset.prepare()  # once, before the workers would each do it
    steps = range(start, stop)
    yield from DataLoader(windows, batch_size=None, sampler=steps, num_workers=workers, collate_fn=_same)


def _same(window: Any) -> Any:
    """A window is a batch already; torch's default would look inside it."""
    return window
