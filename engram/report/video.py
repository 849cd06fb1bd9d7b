"""Reading mp4 files. H W pixels, n frames; frames are uint8 RGB (n, H, W, 3)."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

Frames = UInt8[np.ndarray, "n H W 3"]


def read_frames(path: Path) -> tuple[Frames, Fraction]:
    """All frames of a video and its frames per second; ValueError where the file cannot be decoded to its end."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
            rate = stream.average_rate or Fraction(20)
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(f"{path}: expected a complete mp4, found a broken one ({error}); render it again") from None
    if not frames:
        raise ValueError(f"{path}: expected a video with frames, found none; render it again")
    return np.stack(frames), rate


def filmstrip(path: Path, at: list[float]) -> tuple[Frames, float]:
    """The frames shown at `at` seconds (the last one where the video has ended), and its length in seconds."""
    frames, rate = read_frames(path)
    index = [min(len(frames) - 1, round(second * float(rate))) for second in at]
    return frames[index], len(frames) / float(rate)
