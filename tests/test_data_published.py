"""Data sets as others publish them: MIKASA-Robo-VLA's on the Hub, in the layout of their files (LeRobot v3, AV1)."""

import json
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from test_data import record

from engram.data.lerobot import Dataset, VideoSettings
from engram.data.schedule import Episodes
from engram.data.windows import Windows
from engram.types import Spec

THEIRS = Spec(cameras=("top", "wrist"), height=128, width=128, proprio_dim=7, action_dim=7, control_hz=20.0)
LENGTHS = (11, 15, 12)
needs_av1 = pytest.mark.skipif("libsvtav1" not in av.codecs_available, reason="PyAV without an AV1 encoder")


def as_av1(path: Path) -> None:
    """Encode a video again as the published ones are: AV1, 4:2:0."""
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libsvtav1", rate=20, options={"crf": "20", "g": "2", "svtav1-params": "log-level=0"})
        stream.width, stream.height, stream.pix_fmt = 128, 128, "yuv420p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))


@pytest.fixture
def published(tmp_path) -> Path:
    """A task's folder: cameras top and wrist, pose and action of 7 numbers, nothing about what was executed before."""
    root = record(tmp_path / "remember_color_5_vla_v0", LENGTHS, THEIRS, robot="mikasa_robo", video=VideoSettings())
    path, info = root / "data/chunk-000/file-000.parquet", json.loads((root / "meta/info.json").read_text())
    del info["features"]["observation.previous_action"]
    (root / "meta/info.json").write_text(json.dumps(info))
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["observation.previous_action"]), path)
    source = {"env_id": "RememberColor5-VLA-v0", "num_episodes": len(LENGTHS), "episode_lengths": list(LENGTHS)}
    (root / "source_rlds_metadata.json").write_text(json.dumps(source))
    for video in root.glob("videos/*/*/*.mp4"):
        as_av1(video)
    return root


@needs_av1
def test_a_published_data_set_trains_like_our_own(published, tmp_path):
    ours = Dataset(record(tmp_path / "ours", LENGTHS, THEIRS))
    theirs = Dataset(published)
    assert theirs.spec.cameras == ("base", "wrist")  # as the environment calls them
    assert (theirs.spec.height, theirs.spec.proprio_dim, theirs.spec.action_dim) == (128, 7, 7)
    np.testing.assert_array_equal(theirs.action, ours.action)
    for our_name, name in (("top", "base"), ("wrist", "wrist")):
        error = np.abs(theirs.images(name).astype(int) - ours.images(our_name))
        assert error.mean() < 3  # lossy, and colours of 2 x 2 pixels are one
    window = Windows(theirs, Episodes(theirs.lengths, 2, seed=0), chunk=4)[0]
    assert window.obs.images.shape[2:] == (2, 128, 128, 3)
    starts = theirs.starts[1:]
    assert (theirs.previous_action[theirs.starts] == 0).all()
    np.testing.assert_array_equal(theirs.previous_action[starts + 1], theirs.action[starts])


@needs_av1
def test_data_of_theirs_and_of_ours_mix(published, tmp_path):
    spec = Spec(("base", "wrist"), 128, 128, 7, 7, 20.0)
    both = Dataset(published, record(tmp_path / "ours", LENGTHS, spec))
    assert both.frames == 2 * sum(LENGTHS)
    assert both.spec == spec
