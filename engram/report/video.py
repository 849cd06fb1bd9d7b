"""Reading and joining mp4 files. H W pixels, n frames; frames are uint8 RGB (n, H, W, 3)."""

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


def write_frames(path: Path, frames: Frames, rate: Fraction | int) -> Path:
    """Write H.264 that every browser plays (4:2:0, even sides: an odd last row or column is repeated)."""
    even = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "20"})
        stream.height, stream.width, stream.pix_fmt = even.shape[1], even.shape[2], "yuv420p"
        for frame in even:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return path


def side_by_side(left: Path, right: Path, out: Path, gap: int = 8) -> Path:
    """Join two videos of equal height in one file; the shorter one holds its last frame. Returns `out`."""
    (a, rate), (b, _) = read_frames(left), read_frames(right)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{right}: expected height {a.shape[1]} as in {left}, found {b.shape[1]}; render both alike")
    length = max(len(a), len(b))
    bar = np.full((length, a.shape[1], gap, 3), 255, np.uint8)
    return write_frames(out, np.concatenate([_hold(a, length), bar, _hold(b, length)], axis=2), rate)


def filmstrip(path: Path, at: list[float]) -> tuple[Frames, float]:
    """The frames shown at `at` seconds (the last one where the video has ended), and its length in seconds."""
    frames, rate = read_frames(path)
    index = [min(len(frames) - 1, round(second * float(rate))) for second in at]
    return frames[index], len(frames) / float(rate)


def _hold(frames: Frames, length: int) -> UInt8[np.ndarray, "length H W 3"]:
    return np.concatenate([frames, np.repeat(frames[-1:], length - len(frames), axis=0)])
