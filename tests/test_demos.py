"""Demonstrations: the same data set whoever plays, goes on after a kill, and refuses what it cannot do."""

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from engram import demos, envs, provenance
from engram.data.lerobot import Dataset
from engram.data.seeds import DEMOS
from engram.data.writer import Writer
from engram.demos import Collected, collect, other_expert, play, spec_of
from engram.envs import pushed_ticks, tabletop
from engram.envs.noise import Noise
from engram.envs.tabletop.expert import expert_action

# not importorskip: MuJoCo must be imported by the environment, which chooses how it renders first
pytestmark = pytest.mark.skipif(find_spec("mujoco") is None, reason="needs the extra `tabletop`")

TASK, EPISODES = "recall-color-3", 4


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file() and ".cache" not in path.parts)
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    out = tmp_path_factory.mktemp("demos") / "made"
    made = collect(TASK, EPISODES, out, workers=2)
    assert made == Collected(EPISODES, 0, Dataset(out).frames)
    assert list(out.parent.iterdir()) == [out]
    return out


def test_a_demonstration_is_what_the_expert_wanted(root):
    data = Dataset(root)
    with tabletop.make(TASK) as env:
        assert data.spec == spec_of(env)
        episodes = [play(env, expert_action, DEMOS + number, noise=0.3) for number in range(EPISODES)]
    for key in ("state", "action", "previous_action"):
        np.testing.assert_array_equal(getattr(data, key), np.concatenate([episode[key] for episode in episodes]))
    for camera in data.spec.cameras:
        drawn = np.concatenate([episode[f"image.{camera}"] for episode in episodes])
        assert np.abs(data.images(camera).astype(int) - drawn).max() <= 3
    np.testing.assert_array_equal(data.previous_action[data.starts], 0)
    inside = np.setdiff1d(np.arange(1, data.frames), data.starts)
    assert (data.previous_action[inside] != data.action[inside - 1]).any()  # executed is not wanted: noise
    assert np.abs(data.previous_action).max() <= 1


def strayed(pushed: int) -> np.ndarray:
    """Which of 60 equal actions, disturbed in a hundred runs, was executed as another one in any."""
    wanted = np.full(7, 0.1, np.float32)
    runs = [Noise(np.random.default_rng(seed), 0.3, ticks=pushed) for seed in range(100)]
    return np.array([any([(noise(wanted) != wanted).any() for noise in runs]) for _ in range(60)])


PUSHED = [("recall-color-3", 8), ("mikasa/RememberColor5", 8), ("mikasa/TakeItBack", 30)]


@pytest.mark.parametrize(("task", "pushed"), PUSHED)
def test_noise_ends_where_the_hand_must_come_to_rest(task, pushed):
    assert pushed_ticks(task) == pushed
    assert np.flatnonzero(strayed(pushed)).max() == pushed - 1


def test_an_expert_that_was_rewritten_since_is_noticed(root, monkeypatch):
    assert not other_expert(root, TASK)
    monkeypatch.setattr(envs, "expert_sha256", lambda task: "another")
    assert other_expert(root, TASK)


def test_demonstrations_disturbed_for_longer_or_of_unknown_origin_are_noticed(root, tmp_path, monkeypatch):
    assert other_expert(tmp_path, TASK)
    monkeypatch.setattr(envs, "pushed_ticks", lambda task: 30)
    assert other_expert(root, TASK)


def test_where_they_come_from_is_written_down(root):
    notes = json.loads((root / "meta/engram.json").read_text())
    assert (notes["task"], notes["seeds"], notes["dropped"]) == (TASK, [DEMOS, DEMOS + EPISODES - 1], 0)
    assert (notes["noise"], notes["pushed_ticks"]) == (0.3, 8)
    assert notes["expert_sha256"] == envs.expert_sha256(TASK)
    assert notes["commit"] == provenance.commit()
    episodes = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet", partitioning=None)
    assert episodes["seed"].to_pylist() == [DEMOS + number for number in range(EPISODES)]


def test_a_killed_run_goes_on_to_the_same_bytes(root, tmp_path, monkeypatch):
    """With one worker, where `root` had two: the number of workers leaves no trace either."""

    def killed(_):
        raise KeyboardInterrupt

    out, shards = tmp_path / "made", tmp_path / "made.partial"
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "finalize", killed)
        with pytest.raises(KeyboardInterrupt):
            collect(TASK, EPISODES, out, workers=1)
    assert not out.exists()
    (shards / f"{DEMOS + EPISODES - 1}.npz").unlink()  # three were finished, one was not
    finished = {path: path.stat().st_mtime_ns for path in shards.glob("*.npz")}
    used = {}

    def noted(path, load=demos._load):
        used[path] = path.stat().st_mtime_ns
        return load(path)

    monkeypatch.setattr(demos, "_load", noted)
    collect(TASK, EPISODES, out, workers=1)
    assert len(finished) == EPISODES - 1
    assert used.items() > finished.items()  # those were not played again
    assert list(tmp_path.iterdir()) == [out]
    assert digests(out) == digests(root)


def test_episodes_of_other_settings_are_not_mixed_in(tmp_path):
    shards = tmp_path / "made.partial"
    shards.mkdir()
    (shards / "settings.json").write_text('{"task": "another"}')
    with pytest.raises(
        ValueError, match=r'made.partial: expected episodes of .*, found {"task": "another"}; remove it'
    ):
        collect(TASK, EPISODES, tmp_path / "made")


def test_a_failed_episode_is_none():
    with tabletop.make(TASK, limit=1) as env:
        assert play(env, expert_action, DEMOS, noise=0.0) is None


def test_an_expert_that_fails_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="expected an expert that mostly succeeds, found 21 failures and 0 successes"):
        collect(TASK, 2, tmp_path / "made", workers=1, limit=1)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"task": "recall-colour-3"}, "expected one of recall-color-3, .* found recall-colour-3; did you mean"),
        ({"delay": 3}, "unknown knob of recall-color-3"),
        ({"episodes": 0}, "expected 1 to 50000 episodes, seed 0 to 9 and at least 1 worker, found 0, 0 and 2"),
        ({"seed": 10}, "seed 0 to 9"),
        ({"noise": float("nan")}, "noise: expected a finite number, 0 or more, found nan"),
        ({"noise": -1.0}, "noise: expected a finite number, 0 or more, found -1.0"),
        ({"images": False}, "recall-color-3: expected camera images to record, found none"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        collect(**{"task": TASK, "episodes": 2, "out": tmp_path / "made"} | change)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_data_set_is_kept(root):
    before = digests(root)
    with pytest.raises(ValueError, match="expected a new or empty directory, found an existing one"):
        collect(TASK, EPISODES, root)
    assert digests(root) == before
