"""Decode every image of a data set once, in order, into a cache that random access then costs nothing on.

A window of K ticks read from the mp4 itself would decode each frame up to K times and seek for each window. The cache
is a memory-mapped uint8 (F, H, W, 3) array per camera, named by the contents of the videos that it was made from.
"""

import hashlib
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from engram.data.layout import DataError
from engram.data.reader import Clip, Part
from engram.data.video import decode

Progress = Callable[[int, int], None]  # frames done, frames in all


def images(part: Part, camera: str, progress: Progress | None = None) -> NDArray[np.uint8]:
    """All images of a camera, uint8 (F, H, W, 3), read-only, from the cache; decoded into it first if need be."""
    shape = (len(part.action), part.spec.height, part.spec.width, 3)
    path = _folder(part.root) / camera / f"{_fingerprint(part.clips[camera], shape)}.npy"
    if not path.exists():
        _make_room(path.parent, math.prod(shape))
        _decode(part.clips[camera], shape, path, progress)
    try:
        return np.load(path, mmap_mode="r")
    except ValueError as error:
        raise DataError(path, f"decoded images {shape}", f"{error}", "remove this file, it is made anew") from error


def _folder(root: Path) -> Path:
    """Beside the data, or where the user keeps caches if the data are read-only."""
    if os.access(root, os.W_OK):
        return root / ".cache" / "engram"
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "engram" / hashlib.blake2b(str(root.resolve()).encode(), digest_size=8).hexdigest()


def _make_room(folder: Path, size: int) -> None:
    """Drop images of videos that are no more, and what killed processes left of theirs. DataError if `size` bytes do
    not fit: a full disk under a memory map would end the process without a word."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (*folder.glob("*.npy"), *(part for part in folder.glob("*.part") if not _being_written(part))):
        stale.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    if free < size:
        do = "make room, or set XDG_CACHE_HOME to another disk and make the data read-only"
        raise DataError(folder, f"{size >> 20} MiB of free disk for decoded images", f"{free >> 20} MiB", do)


def _being_written(part: Path) -> bool:
    """Whether the process that a draft is named after is still there (its name is HASH.PID.part)."""
    try:
        os.kill(int(part.suffixes[-2][1:]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _fingerprint(clips: list[Clip], shape: tuple[int, ...]) -> str:
    digest = hashlib.blake2b(repr(shape).encode(), digest_size=12)
    for clip in clips:
        digest.update(clip.row.tobytes() + clip.frame.tobytes())
        with clip.path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _decode(clips: list[Clip], shape: tuple[int, ...], path: Path, progress: Progress | None) -> None:
    """Written under another name and renamed when complete: whoever finds the cache finds all of it."""
    draft = path.with_suffix(f".{os.getpid()}.part")
    out = open_memmap(draft, mode="w+", dtype=np.uint8, shape=shape)
    done = 0
    try:
        for clip in clips:
            _, height, width, _ = shape
            wanted = iter(zip(clip.frame.tolist(), clip.row.tolist(), strict=True))
            frame, row = next(wanted)
            for number, image in enumerate(decode(clip.path, int(clip.frame[-1]) + 1, height, width)):
                while frame == number:
                    out[row] = image
                    done += 1
                    frame, row = next(wanted, (-1, -1))
                if progress is not None and number % 100 == 0:
                    progress(done, shape[0])
        out.flush()
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    if progress is not None:
        progress(shape[0], shape[0])
