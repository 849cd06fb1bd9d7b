"""Does the real `lerobot` package read what Engram writes, and Engram what lerobot writes? Outside the default suite.

    python benchmarks/interop_lerobot.py

Needs lerobot >= 0.4 with its `datasets` and `pandas` beside Engram (its pins on torch do not allow ours: install it
with --no-deps). Prints one line per check and fails at the first difference. Without torchcodec's FFmpeg libraries,
lerobot's frames are fetched with PyAV here, by the same file, timestamps and tolerance that lerobot computed.
"""

import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import av
import numpy as np
import torch

from engram.data.lerobot import Dataset, Writer
from engram.types import Spec

# torchvision's CPU import needs operators that only its compiled part defines; lerobot uses none of them.
_library = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.datasets import lerobot_dataset  # noqa: E402

SPEC = Spec(cameras=("base", "wrist"), height=64, width=64, proprio_dim=7, action_dim=7, control_hz=20.0)
LENGTHS = (12, 7, 30)


def episode(number: int, length: int) -> dict:
    """A square of one colour that moves over a plain table."""
    random = np.random.default_rng(number)
    images = {}
    for camera in SPEC.cameras:
        images[camera] = np.full((length, 64, 64, 3), random.integers(60, 200, 3), np.uint8)
        colour = random.integers(0, 256, 3)
        for t in range(length):
            images[camera][t, 20:30, 10 + t : 20 + t] = colour
    state, action = (random.normal(size=(length, 7)).astype(np.float32) for _ in range(2))
    previous = np.concatenate([np.zeros_like(action[:1]), action[:-1]])
    return {
        "images": images,
        "state": state,
        "action": action,
        "previous_action": previous,
        "task": f"task {number % 2}",
    }


def fetch(path: Path | str, timestamps: list[float], tolerance_s: float, *_: object, **__: object) -> torch.Tensor:
    """What lerobot's decoder returns: float (T, 3, H, W) in [0, 1] of the frames at `timestamps`."""
    with av.open(str(path)) as container:
        shown = [(float(frame.time), frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    times = np.array([time for time, _ in shown])
    nearest = [int(np.abs(times - stamp).argmin()) for stamp in timestamps]
    assert all(abs(times[i] - stamp) < tolerance_s for i, stamp in zip(nearest, timestamps, strict=True))
    return torch.from_numpy(np.stack([shown[i][1] for i in nearest])).permute(0, 3, 1, 2) / 255


def same_frames(theirs: "lerobot_dataset.LeRobotDataset", ours: Dataset) -> None:
    """Every frame, field by field."""
    assert len(theirs) == ours.frames
    for frame in range(ours.frames):
        item = theirs[frame]
        assert item["task"] == ours.instructions(np.array([frame]))[0]
        for key, value in (("observation.state", ours.state), ("action", ours.action)):
            np.testing.assert_array_equal(item[key].numpy(), value[frame])
        assert int(item["frame_index"]) == ours.frame_index[frame]
        for camera in SPEC.cameras:
            image = item[f"observation.images.{camera}"].permute(1, 2, 0).numpy() * 255
            assert np.abs(image - ours.images(camera, np.array(frame))).max() <= 3


def they_read_ours(root: Path) -> None:
    """lerobot opens a data set of `Writer`, windows of history included."""
    with Writer(root, SPEC, frames_per_file=20) as writer:
        for number, length in enumerate(LENGTHS):
            writer.add_episode(**episode(number, length))
    theirs = lerobot_dataset.LeRobotDataset("engram/ours", root=root)
    same_frames(theirs, Dataset(root))
    np.testing.assert_array_equal(theirs[13]["observation.previous_action"].numpy(), theirs[12]["action"].numpy())
    history = lerobot_dataset.LeRobotDataset("engram/ours", root=root, delta_timestamps={"action": [-0.05, 0.0, 0.05]})
    assert history[12]["action_is_pad"].tolist() == [True, False, False]
    assert set(theirs.meta.stats["action"]) >= {"mean", "std", "min", "max", "count", "q01", "q99"}
    print(f"lerobot reads ours: {theirs.num_episodes} episodes, {len(theirs)} frames")


def we_read_theirs(root: Path) -> None:
    """`Dataset` opens a data set of lerobot's own writer."""
    features = {
        **{f"observation.images.{c}": {"dtype": "video", "shape": (64, 64, 3), "names": ["height", "width", "channels"]}
           for c in SPEC.cameras},
        "observation.state": {"dtype": "float32", "shape": (7,), "names": None},
        "action": {"dtype": "float32", "shape": (7,), "names": None},
    }  # fmt: skip
    theirs = lerobot_dataset.LeRobotDataset.create("engram/theirs", 20, features, root=root, use_videos=True)
    for number, length in enumerate(LENGTHS):
        made = episode(number, length)
        for t in range(length):
            images = {f"observation.images.{camera}": made["images"][camera][t] for camera in SPEC.cameras}
            theirs.add_frame(
                {"observation.state": made["state"][t], "action": made["action"][t], "task": made["task"], **images}
            )
        theirs.save_episode()
    theirs.finalize()
    ours = Dataset(root)
    assert ours.spec == SPEC
    same_frames(lerobot_dataset.LeRobotDataset("engram/theirs", root=root), ours)
    print(f"we read lerobot's: {len(ours.episodes)} episodes, {ours.frames} frames")


if __name__ == "__main__":
    try:
        import torchcodec  # noqa: F401
    except (ImportError, RuntimeError, OSError) as missing:
        print(f"torchcodec cannot be used ({type(missing).__name__}): frames are fetched with PyAV")
        lerobot_dataset.decode_video_frames = fetch
    with tempfile.TemporaryDirectory() as folder:
        they_read_ours(Path(folder) / "ours")
        we_read_theirs(Path(folder) / "theirs")
