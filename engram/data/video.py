"""Camera streams as mp4: a deterministic encoder and a sequential decoder."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from engram.data.layout import DataError

PIXELS = "yuv444p"


@dataclass(frozen=True)
class VideoSettings:
    """H.264 with full chroma resolution, lossless by default.

    Objects are a few pixels wide and told apart by colour: the usual 4:2:0 would average their colour with the table
    over blocks of 2 x 2 pixels. Rendered images have no noise, and crf 0 then costs no more bytes than a lossy 6: what
    is read differs from what was drawn by the rounding between RGB and YUV alone (1 or 2 of 255), and frames that were
    equal stay equal, on which the feature store counts. For real cameras choose crf 10 to 20.

    gop is the longest run of frames without a keyframe (a seek decodes that many); each episode begins with one.
    """

    crf: int = 0
    gop: int = 10
    preset: str = "veryfast"


class VideoFile:
    """An mp4 that grows episode by episode. One thread, no dates: the same frames give the same bytes."""

    def __init__(self, path: Path, height: int, width: int, fps: float, settings: VideoSettings):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.frames = 0
        self._convert = VideoReformatter()  # kept: a new one per frame costs more than the conversion
        self._container = av.open(str(path), "w")
        rate = Fraction(fps).limit_denominator(1001)
        options = {"crf": str(settings.crf), "preset": settings.preset}
        self._stream = self._container.add_stream("libx264", rate=rate, options=options)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, PIXELS
        context = self._stream.codec_context
        context.gop_size, context.thread_count, context.time_base = settings.gop, 1, 1 / rate

    def add(self, images: NDArray[np.uint8]) -> None:
        """Append an episode, uint8 (T, H, W, 3) RGB."""
        for t, image in enumerate(images):
            rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = self._convert.reformat(rgb, format=PIXELS)
            frame.pts = self.frames
            frame.pict_type = PictureType.I if t == 0 else PictureType.NONE
            self._container.mux(self._stream.encode(frame))
            self.frames += 1

    def close(self) -> None:
        """Flush the encoder and write the index of the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


def check(path: Path, frames: int, height: int, width: int, fps: float) -> None:
    """Open `path` without decoding; raise DataError unless it claims so many frames, of this size and at this rate.

    Rates may differ by 1 %: files round them, and 29.97 is called 30.
    """
    do = "the file is missing or was cut short: copy or record the data set again"
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            found, size, rate = stream.frames, (stream.height, stream.width), stream.average_rate
    except (av.error.FFmpegError, IndexError) as error:
        raise DataError(path, f"a video of {frames} frames", f"{type(error).__name__} ({error})", do) from error
    if 0 < found < frames:  # some containers do not say (0): decoding will
        raise DataError(path, f"at least {frames} frames", f"{found}", do)
    do = "correct meta/info.json, or record the data set again"
    if size != (height, width):
        raise DataError(path, f"pictures of {height} x {width} as in meta/info.json", f"{size[0]} x {size[1]}", do)
    if rate is not None and abs(rate - fps) > 0.01 * fps:
        raise DataError(path, f"{fps:g} frames a second as in meta/info.json", f"{float(rate):g}", do)


def decode(path: Path, frames: int, height: int, width: int) -> Iterator[NDArray[np.uint8]]:
    """The first `frames` frames of any codec that FFmpeg reads, in order, uint8 (height, width, 3) RGB.

    Decoding forward once never seeks and never decodes a frame twice. Raises DataError when the file ends early.
    """
    count, convert = 0, VideoReformatter()
    do = "the file was cut short: copy or record the data set again"
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                if count == frames:
                    return
                rgb = convert.reformat(frame, width, height, "rgb24")
                yield rgb.to_ndarray().astype(np.uint8, copy=False)
                count += 1
    except av.error.FFmpegError as error:
        raise DataError(path, f"{frames} frames", f"{count} and then {type(error).__name__}", do) from error
    if count < frames:
        raise DataError(path, f"{frames} frames", f"{count}", do)
