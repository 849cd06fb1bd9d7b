"""One LeRobotDataset v3.0 directory, checked: everything but the pixels, which `pixels.py` decodes."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engram.data import layout, video
from engram.data.layout import ACTION, CAMERA, PREVIOUS, STATE, DataError
from engram.types import Spec

NAMES = {("mikasa_robo", "top"): "base"}  # (robot, camera) of published data sets -> what the camera is called here
AGAIN = "the file is missing, cut short or not of this data set: copy or record the data set again"


@dataclass(frozen=True)
class Clip:
    """One mp4 and what to take from it: `frame[i]` of the file is the image of row `row[i]`, frames ascending."""

    path: Path
    row: NDArray[np.int64]
    frame: NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """A directory's rows (F frames of E episodes), and where the pixels are."""

    root: Path
    robot: str
    spec: Spec
    tasks: tuple[str, ...]
    lengths: NDArray[np.int64]  # (E,)
    task_index: NDArray[np.int64]  # (F,)
    frame_index: NDArray[np.int64]  # (F,) control tick within the episode
    state: NDArray[np.float32]  # (F, P)
    action: NDArray[np.float32]  # (F, A)
    previous_action: NDArray[np.float32]  # (F, A)
    clips: dict[str, list[Clip]]  # camera -> its files


def read(root: Path) -> Part:
    """Check and read `root`. DataError names the first file that is missing, cut short or not as info.json says."""
    info = _info(root)
    features = info["features"]
    cameras = _cameras(root, features)
    width = {key: _width(root, features, key) for key in (STATE, ACTION)}
    episodes = _episodes(root)
    frames = _frames(root, info, episodes, width | ({PREVIOUS: width[ACTION]} if PREVIOUS in features else {}))
    lengths = np.asarray(episodes["length"], np.int64)
    _check_rows(root, frames, lengths)
    _check_ticks(root, frames["frame_index"], lengths)
    action = frames[ACTION]
    previous = frames[PREVIOUS] if PREVIOUS in frames else _previous(action, lengths)
    height, wide, _ = features[CAMERA + cameras[0]]["shape"]
    names = tuple(NAMES.get((str(info.get("robot_type")), camera), camera) for camera in cameras)
    spec = Spec(names, height, wide, width[STATE], width[ACTION], float(info["fps"]))
    shown = zip(spec.cameras, cameras, strict=True)
    clips = {name: _clips(root, info, spec, episodes, frames["timestamp"], camera) for name, camera in shown}
    numbers = (frames["task_index"], frames["frame_index"], frames[STATE], action, previous)
    return Part(root, str(info.get("robot_type")), spec, _tasks(root, frames["task_index"]), lengths, *numbers, clips)


def _info(root: Path) -> dict:
    path = root / layout.INFO
    if not path.is_file():
        found = "no such file" if root.is_dir() else "no such directory"
        raise DataError(path, "a LeRobotDataset v3.0", found, "name the directory that holds meta/, data/ and videos/")
    try:
        info = json.loads(path.read_text())
        version, features = info["codebase_version"], info["features"].items()
        for key in ("data_path", "video_path"):
            info[key].format(video_key="", chunk_index=0, file_index=0)
        if not float(info["fps"]) > 0:
            raise ValueError(f"fps {info['fps']}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fields = "JSON with codebase_version, features, data_path, video_path and fps"
        raise DataError(path, fields, f"{type(error).__name__}: {error}", AGAIN) from error
    shapeless = sorted(key for key, feature in features if not _is_feature(feature))
    if shapeless:
        raise DataError(path, "a dtype and a shape for every feature", f"neither or one for {shapeless}", AGAIN)
    if not str(version).startswith("v3."):
        convert = "convert it with `python -m lerobot.scripts.convert_dataset_v21_to_v30`"
        raise DataError(path, "codebase_version v3.x", f"{version}", convert)
    return info


def _is_feature(feature: object) -> bool:
    """Whether it has a dtype, and a shape that is a list."""
    return isinstance(feature, dict) and "dtype" in feature and isinstance(feature.get("shape"), list)


def _cameras(root: Path, features: dict) -> tuple[str, ...]:
    path, keys = root / layout.INFO, [key for key in features if key.startswith(CAMERA)]
    if not keys:
        raise DataError(path, f"a feature {CAMERA}NAME", f"{sorted(features)}", "use a data set with cameras")
    first = features[keys[0]]["shape"]
    for key in keys:
        dtype, shape = features[key]["dtype"], features[key]["shape"]
        if dtype != "video":
            raise DataError(path, f"dtype video for {key}", f"{dtype}", "convert its images to mp4 with lerobot")
        if len(shape) != 3 or shape[2] != 3 or shape != first:
            expected = f"shape [height, width, 3] for {key}, the same for all cameras"
            raise DataError(path, expected, f"{shape} and {first}", "resize the videos when recording")
    return tuple(key.removeprefix(CAMERA) for key in keys)


def _width(root: Path, features: dict, key: str) -> int:
    """The dimension D of a feature that must be float (D,)."""
    path, feature = root / layout.INFO, features.get(key)
    if feature is None:
        raise DataError(path, f"a feature {key}", f"{sorted(features)}", "use a data set that records it")
    dtype, shape = feature["dtype"], feature["shape"]
    if dtype not in ("float32", "float64") or len(shape) != 1:
        raise DataError(path, f"float32 (D,) for {key}", f"{dtype} {tuple(shape)}", "convert the data set")
    return shape[0]


def _table(path: Path, columns: list[str] | None = None) -> pa.Table:
    if not path.is_file():
        raise DataError(path, "a parquet file", "no such file", AGAIN)
    try:
        # partitioning=None: folder names such as chunk-000 are names, not columns
        return pq.read_table(path, columns=columns, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(path, "a readable parquet file", f"{type(error).__name__} ({reason})", AGAIN) from error


def _episodes(root: Path) -> dict[str, list]:
    folder = root / "meta" / "episodes"
    paths = sorted(folder.glob("*/*.parquet"))
    if not paths:
        raise DataError(folder, "chunk-000/file-000.parquet", "no parquet file", AGAIN)
    tables = [_table(path) for path in paths]
    names = [name for name in tables[0].column_names if not name.startswith("stats/")]
    for path, table in zip(paths, tables, strict=True):
        missing = sorted({"length", "data/chunk_index", "data/file_index", *names} - set(table.column_names))
        if missing:
            raise DataError(path, f"columns {missing}", f"{table.column_names}", AGAIN)
    episodes = pa.concat_tables([table.select(names) for table in tables], promote_options="permissive").to_pydict()
    if not episodes["length"]:
        raise DataError(folder, "at least one episode", "none", "record demonstrations first (`engram demos`)")
    if empty := [length for length in episodes["length"] if not isinstance(length, int) or length < 1]:
        raise DataError(folder, "episodes of at least one tick", f"length {empty[0]}", "drop those episodes")
    return episodes


def _frames(root: Path, info: dict, episodes: dict[str, list], width: dict[str, int]) -> dict[str, NDArray]:
    """The columns of all data files in order: int64 or float32 (F,), and float32 (F, D) for the keys of `width`."""
    places = dict.fromkeys(zip(episodes["data/chunk_index"], episodes["data/file_index"], strict=True))
    parts = []
    for chunk, file in places:
        path = root / info["data_path"].format(chunk_index=chunk, file_index=file)
        table = _table(path)
        missing = sorted({*width, *layout.COLUMNS} - set(table.column_names))
        if missing:
            raise DataError(path, f"columns {missing}", f"{table.column_names}", AGAIN)
        scalars = {key: _scalars(path, table, key) for key in layout.COLUMNS}
        parts.append(scalars | {key: _matrix(path, table, key, dim) for key, dim in width.items()})
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _scalars(path: Path, table: pa.Table, key: str) -> NDArray:
    """A column of numbers, one a row: whole ones, but for timestamps."""
    column = table[key].combine_chunks()
    sound = pa.types.is_integer(column.type) or (key == "timestamp" and pa.types.is_floating(column.type))
    if not sound or column.null_count:
        raise DataError(path, f"numbers without nulls in {key}", f"{column.type}, {column.null_count} nulls", AGAIN)
    values = column.to_numpy()
    if not np.isfinite(values).all():
        raise DataError(path, f"finite numbers in {key}", "NaN or infinity", "drop or repair those episodes")
    return values


def _matrix(path: Path, table: pa.Table, key: str, width: int) -> NDArray[np.float32]:
    """A column of lists (or of numbers, if width is 1) as float32 (rows, width)."""
    column = table[key].combine_chunks()
    kinds = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)
    nested = any(is_kind(column.type) for is_kind in kinds)
    flat = column.flatten() if nested else column
    if not pa.types.is_floating(flat.type):
        raise DataError(path, f"floating point numbers in {key}", f"{column.type}", "convert the data set")
    if len(flat) != len(table) * width:
        found = f"{len(flat)} numbers in {len(table)} rows"
        raise DataError(path, f"{width} numbers per row in {key}, as meta/info.json says", found, AGAIN)
    values = flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, width)
    if not np.isfinite(values).all():
        raise DataError(path, f"finite numbers in {key}", "NaN, infinity or null", "drop or repair those episodes")
    return values


def _check_rows(root: Path, frames: dict[str, NDArray], lengths: NDArray[np.int64]) -> None:
    expected, found = int(lengths.sum()), len(frames["index"])
    if expected != found:
        raise DataError(root / "data", f"{expected} rows (the lengths in meta/episodes)", f"{found}", AGAIN)
    if not np.array_equal(frames["episode_index"], np.repeat(np.arange(len(lengths)), lengths)):
        raise DataError(root / "data", "rows in the order of meta/episodes", "another order of episode_index", AGAIN)


def _check_ticks(root: Path, tick: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
    """Ticks rise within an episode; they may leave some out (keyframes)."""
    starts = np.cumsum(lengths) - lengths
    rises = np.diff(tick, prepend=-1) > 0
    rises[starts] = tick[starts] >= 0
    if not rises.all():
        row = int(np.flatnonzero(~rises)[0])
        expected = "frame_index to rise from 0 on within each episode"
        raise DataError(root / "data", expected, f"{tick[row]} in row {row}", AGAIN)


def _tasks(root: Path, task_index: NDArray[np.int64]) -> tuple[str, ...]:
    path = root / layout.TASKS
    table = _table(path)
    # pandas wrote the text as an index: named `task`, or by an older lerobot without a name
    text = next((name for name in ("task", "__index_level_0__") if name in table.column_names), None)
    if text is None or "task_index" not in table.column_names:
        raise DataError(path, "columns task_index and task", f"{table.column_names}", AGAIN)
    tasks = dict(zip(table["task_index"].to_pylist(), table[text].to_pylist(), strict=True))
    unknown = sorted(set(np.unique(task_index).tolist()) - set(tasks))
    if unknown or sorted(tasks) != list(range(len(tasks))):
        raise DataError(path, "a task for each task_index from 0", f"{sorted(tasks)}, missing {unknown}", AGAIN)
    if wrong := [text for text in tasks.values() if not isinstance(text, str)]:
        raise DataError(path, "every task as text", f"{wrong[0]!r}", AGAIN)
    return tuple(tasks[i] for i in range(len(tasks)))


def _previous(action: NDArray[np.float32], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
    """Where a data set does not say what was executed before a tick: the row before, zeros at an episode's start."""
    previous = np.roll(action, 1, axis=0)
    previous[np.cumsum(lengths) - lengths] = 0
    return previous


def _clips(
    root: Path, info: dict, spec: Spec, episodes: dict[str, list], timestamp: NDArray[np.float32], camera: str
) -> list[Clip]:
    """Which frame of which mp4 each row shows: an episode's offset in its file plus the row's timestamp, in ticks."""
    at = f"videos/{CAMERA}{camera}"
    needed = [f"{at}/{name}" for name in ("from_timestamp", "chunk_index", "file_index")]
    if not set(needed) <= set(episodes):
        raise DataError(root / "meta" / "episodes", f"columns {needed}", f"{sorted(episodes)}", AGAIN)
    if absent := [name for name in needed if None in episodes[name]]:
        raise DataError(root / "meta" / "episodes", f"numbers in {absent[0]}", "null", AGAIN)
    offset = np.repeat(np.asarray(episodes[f"{at}/from_timestamp"], np.float64), episodes["length"])
    number = np.rint((offset + timestamp) * spec.control_hz).astype(np.int64)
    place = np.repeat(np.stack([episodes[f"{at}/chunk_index"], episodes[f"{at}/file_index"]], 1), episodes["length"], 0)
    clips = []
    for chunk, file in dict.fromkeys(map(tuple, place.tolist())):
        row = np.flatnonzero((place == (chunk, file)).all(1))
        row = row[np.argsort(number[row], kind="stable")]
        if number[row[0]] < 0:
            raise DataError(root / "data", "timestamps from 0 on", f"{timestamp[row[0]]}", AGAIN)
        names = {"video_key": CAMERA + camera, "chunk_index": chunk, "file_index": file}
        clip = Clip(root / info["video_path"].format(**names), row, number[row])
        video.check(clip.path, int(clip.frame[-1]) + 1, spec.height, spec.width, spec.control_hz)
        clips.append(clip)
    return clips
