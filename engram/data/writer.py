"""Write a LeRobotDataset v3.0: many episodes per file, all or nothing."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engram.data import layout
from engram.data.layout import ACTION, CAMERA, PREVIOUS, STATE, DataError
from engram.data.summary import Summary, combine, quantiles, summarise, summarise_images
from engram.data.video import PIXELS, VideoFile, VideoSettings
from engram.types import Spec

CHUNK_FILES = 1000  # files per chunk directory, LeRobot's default


class Writer:
    """Episodes in, a data set at `root` out.

    Everything is written into the sibling `ROOT.writing` and renamed by `finalize`, so that `root` is either absent
    or complete; what a killed writer left there is removed by the next. As a context manager it finalizes on success.
    The same episodes give the same bytes.

    Args:
        root: directory to make; ValueError if it exists and is not empty.
        spec: cameras, image size, dimensions and control rate of every episode.
        robot: LeRobot's `robot_type`.
        video: encoder settings.
        frames_per_file: an episode that would pass this many frames starts new data and video files.

    `notes`, a dict that JSON can hold, is kept as meta/engram.json: where the episodes come from.
    """

    def __init__(
        self,
        root: Path | str,
        spec: Spec,
        robot: str = "engram-tabletop",
        video: VideoSettings | None = None,
        frames_per_file: int = 100_000,
    ):
        self.root, self.spec, self.robot = Path(root), spec, robot
        self.video, self.frames_per_file = video or VideoSettings(), frames_per_file
        if self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir())):
            raise DataError(self.root, "a new or empty directory", "an existing one", "choose another or remove it")
        self._work = self.root.with_name(self.root.name + ".writing")
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(parents=True)
        self.notes: dict = {}
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict] = []
        self._numbers: dict[str, list[NDArray]] = {STATE: [], ACTION: [], PREVIOUS: []}
        self._summaries: list[dict[str, Summary]] = []
        self._videos: dict[str, VideoFile] = {}
        self._data: pq.ParquetWriter | None = None
        self._file, self._file_start, self._frames = -1, 0, 0

    def add_episode(
        self,
        images: Mapping[str, NDArray],
        state: NDArray,
        action: NDArray,
        previous_action: NDArray,
        task: str,
        extra: Mapping[str, int | float | str] | None = None,
    ) -> None:
        """Append one episode of T >= 1 ticks.

        Args:
            images: camera -> uint8 (T, H, W, 3) RGB.
            state: float32 (T, P) proprioception.
            action: float32 (T, A) the expert's action for each tick.
            previous_action: float32 (T, A) executed before each tick, zeros at the first. Not `action` moved by one
                where the expert's label and the executed action differ (injected noise).
            task: the instruction.
            extra: further columns of the episode's row in meta/episodes; the same names in every episode.

        Raises DataError for a wrong camera, shape, dtype or a value that is not finite.
        """
        numbers = {STATE: state, ACTION: action, PREVIOUS: previous_action}
        length = self._check(images, numbers)
        if self._file < 0 or self._frames - self._file_start + length > self.frames_per_file:
            self._next_file()
        row = {"episode_index": len(self._episodes), "tasks": [task], "length": length}
        row |= self._write_numbers(numbers, length, self._tasks.setdefault(task, len(self._tasks)))
        row |= self._write_images(images, length)
        summary = {key: summarise(value) for key, value in numbers.items()}
        summary |= {CAMERA + camera: summarise_images(images[camera]) for camera in self.spec.cameras}
        row |= {f"stats/{key}/{name}": value.tolist() for key, s in summary.items() for name, value in s.items()}
        self._episodes.append(row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0} | dict(extra or {}))
        self._summaries.append(summary)
        self._frames += length

    def finalize(self) -> None:
        """Close the files, write the metadata and move the data set to `root`. ValueError without any episode."""
        if not self._episodes:
            raise DataError(self.root, "at least one episode", "none", "call add_episode before finalize")
        self._close_file()
        path = self._work / layout.EPISODES.format(chunk_index=0, file_index=0)
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._episodes), path)
        pq.write_table(_tasks_table(list(self._tasks)), self._work / layout.TASKS)
        (self._work / layout.INFO).write_text(json.dumps(self._info(), indent=4))
        (self._work / layout.STATS).write_text(json.dumps(self._stats(), indent=4))
        (self._work / layout.NOTES).write_text(json.dumps(self.notes, indent=4, sort_keys=True))
        if self.root.exists():
            self.root.rmdir()
        os.rename(self._work, self.root)

    def abandon(self) -> None:
        """Drop everything written so far."""
        self._close_file()
        shutil.rmtree(self._work, ignore_errors=True)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.finalize() if kind is None else self.abandon()

    def _check(self, images: Mapping[str, NDArray], numbers: Mapping[str, NDArray]) -> int:
        where, do = f"episode {len(self._episodes)}", "give the writer what its spec says"
        if sorted(images) != sorted(self.spec.cameras):
            raise DataError(where, f"cameras {sorted(self.spec.cameras)}", f"{sorted(images)}", do)
        length = len(numbers[ACTION])
        width = {STATE: self.spec.proprio_dim, ACTION: self.spec.action_dim, PREVIOUS: self.spec.action_dim}
        expected: dict[str, tuple] = {key: ((length, width[key]), np.float32, v) for key, v in numbers.items()}
        frame = (length, self.spec.height, self.spec.width, 3)
        expected |= {CAMERA + camera: (frame, np.uint8, value) for camera, value in images.items()}
        for key, (shape, dtype, value) in expected.items():
            if value.shape != shape or value.dtype != dtype:
                raise DataError(f"{where}, {key}", f"{dtype.__name__} {shape}", f"{value.dtype} {value.shape}", do)
            if dtype is np.float32 and not np.isfinite(value).all():
                raise DataError(f"{where}, {key}", "finite numbers", "NaN or infinity", "drop or repair the episode")
        if not length:
            raise DataError(where, "at least one tick", "none", do)
        return length

    def _place(self) -> dict[str, int]:
        return {"chunk_index": self._file // CHUNK_FILES, "file_index": self._file % CHUNK_FILES}

    def _next_file(self) -> None:
        self._close_file()
        self._file, self._file_start = self._file + 1, self._frames
        path = self._work / layout.DATA.format(**self._place())
        path.parent.mkdir(parents=True, exist_ok=True)
        self._data = pq.ParquetWriter(path, _schema(self.spec))
        spec = self.spec
        for camera in spec.cameras:
            path = self._work / layout.VIDEO.format(video_key=CAMERA + camera, **self._place())
            self._videos[camera] = VideoFile(path, spec.height, spec.width, spec.control_hz, self.video)

    def _close_file(self) -> None:
        for video in self._videos.values():
            video.close()
        self._videos = {}
        if self._data is not None:
            self._data.close()
            self._data = None

    def _write_numbers(self, numbers: Mapping[str, NDArray], length: int, task: int) -> dict:
        """One row group per episode, so that row group i of a file is its i-th episode."""
        assert self._data is not None
        tick = np.arange(length)
        columns = {
            **numbers,
            "timestamp": (tick / self.spec.control_hz).astype(np.float32),
            "frame_index": tick,
            "episode_index": np.full(length, len(self._episodes)),
            "index": self._frames + tick,
            "task_index": np.full(length, task),
        }
        schema = self._data.schema
        arrays = [_array(columns[field.name], field.type) for field in schema]
        self._data.write_table(pa.Table.from_arrays(arrays, schema=schema))
        for key, value in numbers.items():
            self._numbers[key].append(value)
        place = {f"data/{name}": value for name, value in self._place().items()}
        return {**place, "dataset_from_index": self._frames, "dataset_to_index": self._frames + length}

    def _write_images(self, images: Mapping[str, NDArray[np.uint8]], length: int) -> dict:
        row: dict = {}
        start = self._frames - self._file_start
        for camera in self.spec.cameras:
            self._videos[camera].add(images[camera])
            at = f"videos/{CAMERA}{camera}"
            row |= {f"{at}/{name}": value for name, value in self._place().items()}
            row[f"{at}/from_timestamp"] = start / self.spec.control_hz
            row[f"{at}/to_timestamp"] = (start + length) / self.spec.control_hz
        return row

    def _info(self) -> dict:
        hz = self.spec.control_hz
        return {
            "codebase_version": layout.VERSION,
            "robot_type": self.robot,
            "total_episodes": len(self._episodes),
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": int(hz) if hz == int(hz) else hz,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": layout.DATA,
            "video_path": layout.VIDEO,
            "features": _features(self.spec),
        }

    def _stats(self) -> dict:
        stats = {key: combine([s[key] for s in self._summaries]) for key in self._summaries[0]}
        for key, parts in self._numbers.items():
            stats[key] |= quantiles(np.concatenate(parts))
        return {key: {name: value.tolist() for name, value in s.items()} for key, s in stats.items()}


def _vectors(spec: Spec) -> dict[str, int]:
    return {STATE: spec.proprio_dim, ACTION: spec.action_dim, PREVIOUS: spec.action_dim}


def _features(spec: Spec) -> dict[str, dict]:
    hz = spec.control_hz
    info = {
        "video.height": spec.height, "video.width": spec.width, "video.codec": "h264", "video.pix_fmt": PIXELS,
        "video.is_depth_map": False, "video.fps": int(hz) if hz == int(hz) else hz, "video.channels": 3,
        "has_audio": False,
    }  # fmt: skip
    image = {"dtype": "video", "shape": [spec.height, spec.width, 3], "names": ["height", "width", "channels"]}
    return {
        **{CAMERA + camera: {**image, "info": info} for camera in spec.cameras},
        **{key: {"dtype": "float32", "shape": [width], "names": None} for key, width in _vectors(spec).items()},
        **{key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in layout.COLUMNS.items()},
    }


def _schema(spec: Spec) -> pa.Schema:
    # A vector of length 1 is a plain column: LeRobot reads every feature of shape (1,) so.
    vectors = {k: pa.list_(pa.float32(), n) if n > 1 else pa.float32() for k, n in _vectors(spec).items()}
    scalars = {key: pa.type_for_alias(dtype) for key, dtype in layout.COLUMNS.items()}
    return pa.schema([pa.field(key, kind) for key, kind in {**vectors, **scalars}.items()])


def _array(values: NDArray, kind: pa.DataType) -> pa.Array:
    flat = pa.array(values.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, type=kind) if pa.types.is_fixed_size_list(kind) else flat.cast(kind)


def _tasks_table(tasks: list[str]) -> pa.Table:
    """Task text and index. LeRobot reads this with pandas and wants the text as index: the note says so."""
    column = {"metadata": None, "pandas_type": "unicode", "numpy_type": "object", "name": "task", "field_name": "task"}
    number = {"metadata": None, "pandas_type": "int64", "numpy_type": "int64", "name": "task_index"}
    note = {"index_columns": ["task"], "column_indexes": [], "columns": [number | {"field_name": "task_index"}, column]}
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(note)})
