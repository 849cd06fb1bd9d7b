"""Data sets on disk: what is written is read, and what is broken is named."""

import hashlib
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engram.data.lerobot import DataError, Dataset, VideoSettings, Writer
from engram.data.summary import summarise_images
from engram.types import Spec

SPEC = Spec(cameras=("base", "wrist"), height=32, width=48, proprio_dim=3, action_dim=2, control_hz=20.0)
LENGTHS = (7, 4, 9, 5)
FRAMES, VIDEO = "data/chunk-000/file-000.parquet", "videos/observation.images.wrist/chunk-000/file-000.mp4"


def episode(number: int, length: int, spec: Spec = SPEC) -> dict:
    """A coloured square that moves over a plain table."""
    random = np.random.default_rng(number)
    images = {}
    for camera in spec.cameras:
        images[camera] = np.full((length, spec.height, spec.width, 3), random.integers(60, 200, 3), np.uint8)
        colour = random.integers(0, 256, 3)
        for t in range(length):
            images[camera][t, 8:20, 8 + t : 20 + t] = colour
    state = random.normal(size=(length, spec.proprio_dim)).astype(np.float32)
    action = random.uniform(-1, 1, (length, spec.action_dim)).astype(np.float32)
    previous = np.concatenate([np.zeros_like(action[:1]), action[:-1] + 0.5])
    return {
        "images": images,
        "state": state,
        "action": action,
        "previous_action": previous,
        "task": f"task {number % 2}",
    }


def record(root: Path, lengths: tuple[int, ...] = LENGTHS, spec: Spec = SPEC, first: int = 0, **settings) -> Path:
    with Writer(root, spec, **settings) as writer:
        for number, length in enumerate(lengths):
            writer.add_episode(**episode(first + number, length, spec))
    return root


@pytest.fixture
def root(tmp_path):
    return record(tmp_path / "demos")


def edit_info(root: Path, **changes) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_column(root: Path, name: str, values) -> None:
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.set_column(table.column_names.index(name), name, values), path)


def edit_tasks(root: Path, texts: list) -> None:
    path = root / "meta/tasks.parquet"
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.set_column(table.column_names.index("task"), "task", pa.array(texts, pa.string())), path)


@pytest.mark.parametrize("frames_per_file", [100_000, 10])
def test_what_is_written_is_read(tmp_path, frames_per_file):
    data = Dataset(record(tmp_path / "demos", frames_per_file=frames_per_file))
    assert data.spec == SPEC
    assert data.frames == sum(LENGTHS)
    assert [(e.start, e.length, e.task) for e in data.episodes] == [
        (0, 7, "task 0"), (7, 4, "task 1"), (11, 9, "task 0"), (20, 5, "task 1"),
    ]  # fmt: skip
    for number, (start, length) in enumerate(zip(data.starts, data.lengths, strict=True)):
        want, frames = episode(number, length), np.arange(start, start + length)
        for name in ("state", "action", "previous_action"):
            np.testing.assert_array_equal(getattr(data, name)[frames], want[name])
        np.testing.assert_array_equal(data.frame_index[frames], np.arange(length))
        for c, camera in enumerate(SPEC.cameras):
            seen = data.images(camera, frames).astype(int)
            assert np.abs(seen - want["images"][camera]).max() <= 3
            np.testing.assert_array_equal(data.pixels(frames)[:, c], seen)


def test_colours_of_small_objects_survive_the_video(root):
    """What is read differs from what was drawn by the rounding of colours alone, at every edge; equal stays equal."""
    seen, drawn = Dataset(root).images("base", np.arange(7)).astype(int), episode(0, 7)["images"]["base"]
    assert np.abs(seen - drawn).max() <= 3
    still = (drawn[1:, :, :8] == drawn[:-1, :, :8]).all()
    assert still
    np.testing.assert_array_equal(seen[1:, :, :8], seen[:-1, :, :8])


def test_image_statistics_are_exact():
    images = np.random.default_rng(0).integers(3, 250, (5, 6, 7, 3)).astype(np.uint8)
    summary = summarise_images(images)
    for name in ("min", "max", "mean", "std"):
        want = getattr(np, name)(images / 255.0, axis=(0, 1, 2)).reshape(3, 1, 1)
        np.testing.assert_allclose(summary[name], want, atol=1e-12)


def test_the_files_are_those_of_lerobot(root):
    info = json.loads((root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["fps"], info["total_episodes"], info["total_frames"], info["total_tasks"]) == (20, 4, 25, 2)
    assert set(info["features"]) == {
        "observation.images.base", "observation.images.wrist", "observation.state", "action",
        "observation.previous_action", "timestamp", "frame_index", "episode_index", "index", "task_index",
    }  # fmt: skip
    assert info["features"]["observation.images.base"]["info"]["video.pix_fmt"] == "yuv444p"
    tasks = pq.read_table(root / "meta/tasks.parquet")
    assert tasks.to_pydict() == {"task_index": [0, 1], "task": ["task 0", "task 1"]}
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    episodes = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet", partitioning=None).to_pydict()
    assert episodes["dataset_to_index"] == [7, 11, 20, 25]
    assert episodes["videos/observation.images.wrist/from_timestamp"] == [0.0, 0.35, 0.55, 1.0]
    stats = json.loads((root / "meta/stats.json").read_text())
    np.testing.assert_allclose(stats["action"]["mean"], Dataset(root).action.mean(0), rtol=1e-6)
    np.testing.assert_allclose(stats["action"]["std"], Dataset(root).action.std(0), rtol=1e-6)
    assert np.shape(stats["observation.images.base"]["mean"]) == (3, 1, 1)


def test_the_same_episodes_give_the_same_bytes(tmp_path):
    def digest(root):
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    assert digest(record(tmp_path / "a")) == digest(record(tmp_path / "b"))


def test_images_are_decoded_once(root, monkeypatch):
    first = Dataset(root).images("base").copy()
    monkeypatch.setattr("engram.data.pixels.decode", None)  # a second decode would fail
    np.testing.assert_array_equal(Dataset(root).images("base"), first)


def test_new_videos_are_decoded_anew(tmp_path, root):
    old = Dataset(root).images("base").copy()
    other = record(tmp_path / "other", video=VideoSettings(crf=40))
    name = "videos/observation.images.base/chunk-000/file-000.mp4"
    (root / name).write_bytes((other / name).read_bytes())
    assert not np.array_equal(Dataset(root).images("base"), old)
    assert len(list((root / ".cache").rglob("base/*.npy"))) == 1


def test_what_a_killed_process_left_of_its_images_is_removed(root, tmp_path):
    folder = root / ".cache/engram/base"
    folder.mkdir(parents=True)
    gone = subprocess.Popen(["true"])
    gone.wait()
    left, written = folder / f"0.{gone.pid}.part", folder / f"1.{os.getpid()}.part"
    left.touch()
    written.touch()
    Dataset(root).images("base")
    assert (left.exists(), written.exists()) == (False, True)


def test_several_data_sets_are_one(tmp_path, root):
    other = record(tmp_path / "other", (3, 6), first=1)
    both, one, two = Dataset(root, other), Dataset(root), Dataset(other)
    assert both.tasks == ("task 0", "task 1")
    assert both.instructions(np.array([0, 25, 28])) == ("task 0", "task 1", "task 0")
    np.testing.assert_array_equal(both.action, np.concatenate([one.action, two.action]))
    mixed = np.array([[3, 26], [33, 24]])
    want = np.concatenate([one.pixels(np.arange(25)), two.pixels(np.arange(9))])[mixed]
    np.testing.assert_array_equal(both.pixels(mixed), want)


def test_a_data_set_named_twice_is_there_once_and_shown_twice(tmp_path, root):
    other = record(tmp_path / "other", (3, 6), first=1)
    plain, twice = Dataset(root, other), Dataset(root, other, root)
    mine = len(Dataset(root).lengths)
    np.testing.assert_array_equal(twice.action, plain.action)
    assert np.bincount(twice.shown).tolist() == [2] * mine + [1, 1]
    assert plain.shown.tolist() == list(range(mine + 2))
    assert "shown" not in plain.identity()
    assert twice.identity()["shown"] == 2 * mine + 2
    digests = {data.identity()["digest"] for data in (plain, twice, Dataset(root, other, other))}
    assert len(digests) == 3


def rewrite(path: Path, change) -> None:
    table = pq.read_table(path, partitioning=None)
    pq.write_table(change(table), path)


def test_other_people_s_files_are_read(root):
    """Lists of doubles, the text of tasks as a nameless pandas index, another codec and file number."""
    want = Dataset(root).images("wrist").astype(int)

    def doubles(table):
        at = table.column_names.index("action")
        return table.set_column(at, "action", table["action"].cast(pa.list_(pa.float64())))

    rewrite(root / FRAMES, doubles)
    rewrite(root / "meta/tasks.parquet", lambda t: t.rename_columns(["task_index", "__index_level_0__"]))
    at = "videos/observation.images.wrist/"
    moved = root / at / "chunk-003/file-012.mp4"
    moved.parent.mkdir()
    recode(root / VIDEO, moved)
    for name, number in (("chunk_index", 3), ("file_index", 12)):
        path = root / "meta/episodes/chunk-000/file-000.parquet"
        rewrite(path, lambda t, n=name, v=number: t.set_column(t.column_names.index(at + n), at + n, [[v] * 4]))
    data = Dataset(root)
    np.testing.assert_array_equal(data.action[:7], episode(0, 7)["action"])
    assert data.tasks == ("task 0", "task 1")
    assert np.abs(data.images("wrist") - want).mean() < 6


def recode(source: Path, target: Path) -> None:
    """The same film in MPEG-4 with shared chroma."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream("mpeg4", rate=20)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = SPEC.width, SPEC.height, "yuv420p", 4_000_000
        for frame in old.decode(video=0):
            new.mux(stream.encode(frame.reformat(format="yuv420p")))
        new.mux(stream.encode(None))


def test_frames_left_out_of_the_rows_are_left_out_of_the_film(root):
    """Keyframe subsampling keeps the video and the original ticks; a row's timestamp says which frame is its own."""
    whole = Dataset(root).images("base").copy()
    keep = np.flatnonzero(Dataset(root).frame_index % 2 == 0)
    rewrite(root / FRAMES, lambda t: t.take(keep))
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    lengths = [[4, 2, 5, 3]]
    rewrite(path, lambda t: t.set_column(t.column_names.index("length"), "length", lengths))
    data = Dataset(root)
    assert data.frame_index[:5].tolist() == [0, 2, 4, 6, 0]
    np.testing.assert_array_equal(data.images("base"), whole[keep])


def test_data_sets_that_differ_are_not_joined(tmp_path, root):
    other = record(tmp_path / "other", spec=replace(SPEC, action_dim=3))
    with pytest.raises(ValueError, match=r"other: expected action_dim 2, found 3"):
        Dataset(root, other)


def test_an_identity_knows_the_order_of_its_data(tmp_path, root):
    other = record(tmp_path / "other", (4, 3))
    one, two = Dataset(root, other).identity(), Dataset(other, root).identity()
    assert one["frames"] == two["frames"]
    assert one["digest"] != two["digest"]
    assert one == Dataset(root, other).identity()


def test_the_previous_action_is_derived_where_it_is_missing(root):
    info = json.loads((root / "meta/info.json").read_text())
    del info["features"]["observation.previous_action"]
    edit_info(root, features=info["features"])
    data = Dataset(root)
    np.testing.assert_array_equal(data.previous_action[data.starts], 0)
    np.testing.assert_array_equal(data.previous_action[1:7], data.action[0:6])


def test_a_full_disk_is_a_sentence(root, monkeypatch):
    monkeypatch.setattr("engram.data.pixels.shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(
        DataError, match=r"base: expected 0 MiB of free disk for decoded images, found 0 MiB; make room"
    ):
        Dataset(root).images("base")


def test_read_only_data_are_cached_elsewhere(root, tmp_path, monkeypatch):
    monkeypatch.setattr("engram.data.pixels.os.access", lambda *_: False)  # root may write anywhere
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Dataset(root).prepare()
    assert not (root / ".cache").exists()
    assert len(list((tmp_path / "cache" / "engram").rglob("*.npy"))) == 2


def test_progress_counts_to_the_end(root):
    calls = []
    Dataset(root).prepare(lambda done, total: calls.append((done, total)))
    assert calls[-1] == (50, 50)
    assert calls == sorted(calls)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_an_existing_data_set_is_not_overwritten(root):
    with pytest.raises(DataError, match="expected a new or empty directory"):
        Writer(root, SPEC)


def test_a_failed_recording_leaves_nothing(tmp_path):
    with pytest.raises(DataError), Writer(tmp_path / "demos", SPEC) as writer:
        writer.add_episode(**episode(0, 5) | {"images": {}})
    assert list(tmp_path.iterdir()) == []


def test_no_episode_is_no_data_set(tmp_path):
    with pytest.raises(DataError, match="expected at least one episode, found none"):
        Writer(tmp_path / "demos", SPEC).finalize()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"images": {"base": np.zeros((5, 32, 48, 3), np.uint8)}},
            r"expected cameras \['base', 'wrist'\], found \['base'\]",
        ),
        ({"action": np.zeros((5, 3), np.float32)}, r"action: expected float32 \(5, 2\), found float32 \(5, 3\)"),
        ({"state": np.zeros((5, 3), np.float64)}, r"state: expected float32 \(5, 3\), found float64 \(5, 3\)"),
        ({"action": np.full((5, 2), np.nan, np.float32)}, "action: expected finite numbers, found NaN"),
    ],
)
def test_a_wrong_episode_is_not_written(tmp_path, change, sentence):
    with Writer(tmp_path / "demos", SPEC) as writer:
        writer.add_episode(**episode(0, 5))
        with pytest.raises(DataError, match=sentence):
            writer.add_episode(**episode(0, 5) | change)
    assert len(Dataset(tmp_path / "demos").episodes) == 1


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def features_with(root: Path, **changes) -> dict:
    features = json.loads((root / "meta/info.json").read_text())["features"]
    return features | {name.replace("__", "."): features[name.replace("__", ".")] | c for name, c in changes.items()}


def sized(key: str, feature: dict) -> dict:
    return feature | {"shape": [16, 48, 3]} if key.startswith("observation.images.") else feature


BREAK = {
    "no directory": (
        lambda r: r.rename(r.with_name("gone")),
        r"info.json: expected a LeRobot.*found no such directory",
    ),
    "no info": (
        lambda r: (r / "meta/info.json").unlink(),
        r"info.json: expected a LeRobotDataset v3.0, found no such file",
    ),
    "info cut": (
        lambda r: truncate(r / "meta/info.json"),
        r"info.json: expected JSON .* found JSONDecodeError",
    ),
    "old version": (
        lambda r: edit_info(r, codebase_version="v2.1"),
        r"expected codebase_version v3.x, found v2.1; convert",
    ),
    "info empty": (
        lambda r: (r / "meta/info.json").write_text("[]"),
        r"info.json: expected JSON with .* found TypeError",
    ),
    "no shape": (
        lambda r: edit_info(r, features={"action": {}}),
        r"a dtype and a shape for every feature, found .*action",
    ),
    "no video path": (
        lambda r: edit_info(r, video_path=None),
        r"info.json: expected JSON with .*video_path.* found AttributeError",
    ),
    "odd video path": (
        lambda r: edit_info(r, video_path="videos/{camera}.mp4"),
        r"info.json: expected JSON with .*video_path.* found KeyError: 'camera'",
    ),
    "null feature": (
        lambda r: edit_info(r, features={"action": None}),
        r"a dtype and a shape for every feature, found .*action",
    ),
    "no rate": (lambda r: edit_info(r, fps=0), r"expected JSON with .*fps, found ValueError: fps 0"),
    "no cameras": (
        lambda r: edit_info(r, features={}),
        r"expected a feature observation.images.NAME, found \[\]",
    ),
    "images": (
        lambda r: edit_info(r, features=features_with(r, observation__images__base={"dtype": "image"})),
        r"expected dtype video for observation.images.base, found image",
    ),
    "two sizes": (
        lambda r: edit_info(r, features=features_with(r, observation__images__wrist={"shape": [8, 8, 3]})),
        r"the same for all cameras, found \[8, 8, 3\] and \[32, 48, 3\]",
    ),
    "dtype": (
        lambda r: edit_info(r, features=features_with(r, action={"dtype": "int64"})),
        r"info.json: expected float32 \(D,\) for action, found int64 \(2,\)",
    ),
    "shape": (
        lambda r: edit_info(r, features=features_with(r, action={"shape": [5]})),
        r"file-000.parquet: expected 5 numbers per row in action, .* found 50 numbers in 25 rows",
    ),
    "integers": (
        lambda r: edit_column(r, "action", [[[1, 2]] * 25]),
        r"file-000.parquet: expected floating point numbers in action, found list<",
    ),
    "NaN": (
        lambda r: edit_column(r, "action", [[[1.0, float("nan")]] * 25]),
        r"file-000.parquet: expected finite numbers in action, found NaN",
    ),
    "no frames": (
        lambda r: (r / FRAMES).unlink(),
        r"file-000.parquet: expected a parquet file, found no such file",
    ),
    "frames cut": (
        lambda r: truncate(r / FRAMES),
        r"file-000.parquet: expected a readable parquet file, found ArrowInv",
    ),
    "no video": (
        lambda r: (r / VIDEO).unlink(),
        r"wrist.*file-000.mp4: expected a video of 25 frames, found FileNotFound",
    ),
    "video cut": (
        lambda r: truncate(r / VIDEO),
        r"wrist.*file-000.mp4: expected a video of 25 frames, found InvalidData",
    ),
    "no tasks": (
        lambda r: (r / "meta/tasks.parquet").unlink(),
        r"tasks.parquet: expected a parquet file, found no such",
    ),
    "ticks that stand still": (
        lambda r: edit_column(r, "frame_index", [[0] * 25]),
        r"data: expected frame_index to rise from 0 on within each episode, found 0 in row 1",
    ),
    "other rate": (
        lambda r: edit_info(r, fps=10),
        r"base.*file-000.mp4: expected 10 frames a second as in meta/info.json, found 20",
    ),
    "other size": (
        lambda r: edit_info(r, features={k: sized(k, f) for k, f in features_with(r).items()}),
        r"base.*file-000.mp4: expected pictures of 16 x 48 as in meta/info.json, found 32 x 48",
    ),
    "text for a number": (
        lambda r: edit_column(r, "timestamp", [["0"] * 25]),
        r"file-000.parquet: expected numbers without nulls in timestamp, found string, 0 nulls",
    ),
    "null": (
        lambda r: edit_column(r, "task_index", [[None] + [0] * 24]),
        r"file-000.parquet: expected numbers without nulls in task_index, found int64, 1 nulls",
    ),
    "NaN for a time": (
        lambda r: edit_column(r, "timestamp", [[float("nan")] * 25]),
        r"file-000.parquet: expected finite numbers in timestamp, found NaN",
    ),
    "a task without text": (
        lambda r: edit_tasks(r, [None, "task 1"]),
        r"tasks.parquet: expected every task as text, found None",
    ),
    "other order": (
        lambda r: edit_column(r, "episode_index", [[0] * 25]),
        r"data: expected rows in the order of meta/epi",
    ),
}


@pytest.mark.parametrize("how", BREAK)
def test_a_broken_data_set_is_one_clear_sentence(root, how):
    spoil, sentence = BREAK[how]
    spoil(root)
    with pytest.raises(DataError, match=sentence) as error:
        Dataset(root)
    assert "; " in str(error.value)  # what to do
    assert "\n" not in str(error.value)


def test_no_episodes(root):
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path, partitioning=None).slice(0, 0), path)
    with pytest.raises(DataError, match=r"meta/episodes: expected at least one episode, found none; record"):
        Dataset(root)


@pytest.mark.parametrize("length", [0, None])
def test_an_episode_without_ticks(root, length):
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    lengths = [pa.array([7, 4, 14, length], pa.int64())]
    rewrite(path, lambda t: t.set_column(t.column_names.index("length"), "length", lengths))
    with pytest.raises(DataError, match=f"expected episodes of at least one tick, found length {length}; drop"):
        Dataset(root)


def test_a_video_shorter_than_the_episodes(tmp_path, root):
    short = record(tmp_path / "short", (7, 4))
    (root / VIDEO).write_bytes((short / VIDEO).read_bytes())
    with pytest.raises(DataError, match=r"file-000.mp4: expected at least 25 frames, found 11"):
        Dataset(root)
