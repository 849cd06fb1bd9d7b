"""What a frozen encoder makes of each frame, computed once and kept.

Episodes wait: the frames of a cue or of a delay repeat. Frames that are equal in images, proprioception and
instruction share one entry, so that both computing and keeping cost what the distinct frames cost.
"""

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from engram.data.lerobot import Dataset
from engram.data.pixels import Progress
from engram.device import holds
from engram.types import Observation


class FeatureStore:
    """`store[frames]`, int64 of any shape (...), gives features float32 (..., *encoder's).

    values  (U, ...)  features of the U distinct frames, in the storage dtype
    index   (F,)      int64, entry of each frame of the data set, where the values are
    """

    def __init__(self, values: Float[Tensor, "U *feature"], index: Int64[Tensor, "F"]):
        self.values, self.index = values, index

    @classmethod
    @torch.no_grad()
    def build(
        cls,
        dataset: Dataset,
        encode: Callable[[Observation], Tensor],
        dtype: torch.dtype = torch.float16,
        batch: int = 64,
        progress: Progress | None = None,
        device: torch.device | str = "cpu",
        stay: bool = True,
    ) -> "FeatureStore":
        """Encode each distinct frame of `dataset`.

        Args:
            dataset: the frames.
            encode: observation of B independent frames -> features (B, ...); must depend on images, proprioception
                and instruction alone (not on tick or action) and be in evaluation mode.
            dtype: how features are kept. float16 halves the memory and keeps 3 digits; float32 keeps all.
            batch: frames per call of `encode`.
            progress: called with (frames done, distinct frames).
            device: where to encode.
            stay: keep the features there too, if they fit; else in main memory.
        """
        kept, index = distinct(dataset)
        values: Tensor | None = None
        for start in range(0, len(kept), batch):
            out = encode(observation(dataset, kept[start : start + batch]).to(device)).to(dtype)
            if values is None:
                fits = stay and holds(out.device, out[0].nbytes * len(kept))
                values = out.new_empty((len(kept), *out.shape[1:]), device=out.device if fits else "cpu")
            values[start : start + len(out)] = out.to(values.device)
            if progress is not None:
                progress(min(start + batch, len(kept)), len(kept))
        assert values is not None, "a data set has at least one frame"
        return cls(values, torch.from_numpy(index).to(values.device))

    def __getitem__(self, frames: Int64[Tensor, "*lead"]) -> Float[Tensor, "..."]:
        """Features of `frames`, float32, where the values are."""
        return self.values[self.index[frames.to(self.index.device)]].float()


def distinct(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Frames that differ: the first of each kind, int64 (U,) ascending, and for every frame its kind, int64 (F,)."""
    seen: dict[bytes, int] = {}
    kept: list[int] = []
    index = np.empty(dataset.frames, np.int64)
    for start, length in zip(dataset.starts.tolist(), dataset.lengths.tolist(), strict=True):
        frames = np.arange(start, start + length)  # an episode at a time: all images may not fit into memory
        for frame, images in zip(frames.tolist(), dataset.pixels(frames), strict=True):
            digest = hashlib.blake2b(dataset.state[frame].tobytes(), digest_size=16)
            digest.update(dataset.task_index[frame].tobytes())
            digest.update(images)
            index[frame] = seen.setdefault(digest.digest(), len(kept))
            if index[frame] == len(kept):
                kept.append(frame)
    return np.array(kept), index


def observation(dataset: Dataset, frames: np.ndarray) -> Observation:
    """Independent frames, int64 (B,), as a batch of observations."""
    tick = torch.from_numpy(dataset.frame_index[frames])
    return Observation(
        images=torch.from_numpy(dataset.pixels(frames)),
        proprio=torch.from_numpy(dataset.state[frames]),
        instruction=dataset.instructions(frames),
        tick=tick,
        capture_tick=tick.clone(),
        action=torch.from_numpy(dataset.previous_action[frames]),
    )
