"""Windows, their loader, the feature store and the normaliser."""

import pickle
from dataclasses import fields

import numpy as np
import pytest
import torch
from test_data import record

from engram.data import emphasis
from engram.data.features import FeatureStore, distinct
from engram.data.lerobot import Dataset, Writer
from engram.data.normalise import Normaliser
from engram.data.schedule import Episodes, Schedule, Shuffled
from engram.data.windows import Windows, load
from engram.types import Observation, Window

LENGTHS = (7, 4, 9, 5, 6, 8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    dataset = Dataset(record(tmp_path_factory.mktemp("data") / "demos", LENGTHS))
    dataset.prepare()
    return dataset


def tensors(window: Window) -> dict[str, torch.Tensor]:
    values = {f.name: getattr(window, f.name) for f in fields(Window)} | vars(window.obs)
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}


def assert_same(one: Window, two: Window) -> None:
    assert one.obs.instruction == two.obs.instruction
    assert tensors(one).keys() == tensors(two).keys()
    for name, value in tensors(one).items():
        assert torch.equal(value, tensors(two)[name]), name


def encode(obs: Observation) -> torch.Tensor:
    """A frozen encoder's double: mean colour of each camera, beside the proprioception."""
    return torch.cat([obs.images.float().mean((2, 3)).flatten(1), obs.proprio], 1)


def test_a_window_holds_what_the_data_hold(data):
    window = Windows(data, Schedule(data.lengths, slots=2, ticks=5, seed=0), chunk=3)[2]
    spec = data.spec
    assert window.obs.images.shape == (2, 5, 2, spec.height, spec.width, 3)
    assert window.target.shape == (2, 5, 3, spec.action_dim)
    episode = np.searchsorted(data.starts, window.frame.numpy(), side="right") - 1
    for b in range(2):
        for t in range(5):
            frame, e = int(window.frame[b, t]), episode[b, t]
            end = data.starts[e] + data.lengths[e]
            np.testing.assert_array_equal(window.obs.images[b, t], data.pixels(np.array(frame)))
            np.testing.assert_array_equal(window.obs.proprio[b, t], data.state[frame])
            np.testing.assert_array_equal(window.obs.action[b, t], data.previous_action[frame])
            assert window.obs.instruction[b * 5 + t] == data.tasks[data.task_index[frame]]
            assert window.obs.tick[b, t] == frame - data.starts[e] == window.obs.capture_tick[b, t]
            assert window.first[b, t] == (frame == data.starts[e])
            for n in range(3):
                assert window.target_ok[b, t, n] == (frame + n < end)
                np.testing.assert_array_equal(window.target[b, t, n], data.action[min(frame + n, end - 1)])
    assert window.valid.all()


def test_padding_asks_for_nothing(data):
    window = Windows(data, Episodes(data.lengths, slots=3, seed=0), chunk=2)[1]
    length = window.valid.sum(1)
    assert window.ticks == length.max()  # the longest of these three, not of the data set
    assert not window.target_ok[~window.valid].any()
    for b in range(3):
        last = window.frame[b, length[b] - 1]
        assert (window.frame[b, length[b] :] == last).all()
    assert window.first.sum(1).tolist() == [1, 1, 1]


def test_what_a_schedule_names_is_an_episode_of_a_pass(data):
    twice = Dataset(*2 * data.roots)
    window = Windows(twice, Episodes(twice.lengths[twice.shown], slots=len(twice.shown), seed=0), chunk=2)[0]
    episode = np.searchsorted(data.starts, window.frame[:, 0].numpy(), side="right") - 1
    assert sorted(episode) == sorted([*range(len(data.lengths))] * 2)
    assert window.valid.sum(1).tolist() == data.lengths[episode].tolist()


def test_shuffled_windows_are_of_independent_frames(data):
    window = Windows(data, Shuffled(data.lengths, slots=4, ticks=2, seed=0), chunk=2)[3]
    assert window.first.all()
    assert window.obs.images.shape[:2] == (4, 2)


@pytest.mark.parametrize("with_features", [False, True])
def test_any_number_of_workers_gives_the_same_bits(data, with_features):
    features = FeatureStore.build(data, encode) if with_features else None
    windows = Windows(data, Schedule(data.lengths, slots=2, ticks=4, seed=3), chunk=2, features=features)
    alone = list(load(windows, 5, 12))
    for workers in (1, 2):
        for one, two in zip(alone, load(windows, 5, 12, workers), strict=True):
            assert_same(one, two)


def test_a_resumed_run_sees_the_same_windows(data):
    def windows():
        return Windows(data, Schedule(data.lengths, slots=2, ticks=4, seed=3), chunk=2)

    for one, two in zip(list(load(windows(), 0, 15))[9:], load(windows(), 9, 15), strict=True):
        assert_same(one, two)


def test_with_features_no_image_is_moved(data):
    features = FeatureStore.build(data, encode, dtype=torch.float32)
    windows = Windows(data, Schedule(data.lengths, slots=2, ticks=4, seed=3), chunk=2, features=features)
    images = windows[0].obs.images
    assert images.shape == (2, 4, 2, data.spec.height, data.spec.width, 3)
    assert images.untyped_storage().nbytes() == 1
    whole = Windows(data, windows.schedule, chunk=2)[0]
    assert torch.allclose(windows[0].features.flatten(0, 1), encode(whole.obs.flat()), rtol=1e-6)


def test_equal_frames_are_encoded_once(tmp_path):
    from test_data import SPEC, episode

    still = episode(0, 6)
    still["images"] = {camera: np.full((6, 32, 48, 3), 90, np.uint8) for camera in SPEC.cameras}
    still["state"][:] = 1
    with Writer(tmp_path / "demos", SPEC) as writer:
        for task in ("left", "left", "right"):
            writer.add_episode(**still | {"task": task})
    data = Dataset(tmp_path / "demos")
    kept, index = distinct(data)
    assert kept.tolist() == [0, 12]  # one per instruction
    assert index.tolist() == [0] * 12 + [1] * 6
    calls = []
    store = FeatureStore.build(data, encode, progress=lambda *call: calls.append(call))
    assert calls[-1] == (2, 2)
    assert store.values.nbytes == 2 * 9 * 2
    assert store[torch.tensor([[0, 17]])].dtype == torch.float32


def test_features_keep_what_their_dtype_can(data):
    exact = FeatureStore.build(data, encode, dtype=torch.float32)
    half = FeatureStore.build(data, encode, batch=7)
    frames = torch.arange(data.frames)
    assert torch.allclose(half[frames], exact[frames], rtol=1e-3, atol=1e-3)
    assert half.values.nbytes * 2 == exact.values.nbytes


def test_a_data_set_travels_as_its_path(data):
    assert len(pickle.dumps(data)) < 1000
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy.pixels(np.arange(3)), data.pixels(np.arange(3)))


def test_windows_travel_to_a_process_that_shares_nothing(data):
    windows = Windows(data, Schedule(data.lengths, 2, 4, seed=3), 2, FeatureStore.build(data, encode))
    assert_same(pickle.loads(pickle.dumps(windows))[7], windows[7])


def test_a_frame_counts_for_what_changes_in_it():
    action = np.array([[0, 0], [0, 0], [1, 0], [1, 0], [5, 1], [5, 0]], np.float32)
    starts = np.array([0, 4])
    found = emphasis.weights(action, starts, 2.0)
    moved = np.array([0, 0, 1 / action.std(0)[0], 0, 0, 1 / action.std(0)[1]])  # the fifth begins an episode
    expected = 1 + 2 * moved / moved.mean()
    np.testing.assert_allclose(found, expected / expected.mean(), rtol=1e-5)
    assert found.mean() == pytest.approx(1)
    np.testing.assert_array_equal(emphasis.weights(np.zeros((4, 2), np.float32), np.array([0]), 2.0), np.ones(4))


def test_a_window_says_how_much_its_ticks_count(data):
    schedule, weight = (
        Episodes(np.array(LENGTHS), 2, 0),
        np.random.default_rng(0).random(sum(LENGTHS)).astype(np.float32),
    )
    window = Windows(data, schedule, 2, weight=weight)[0]
    np.testing.assert_array_equal(window.weight.numpy(), weight[window.frame.numpy()])
    assert Windows(data, schedule, 2)[0].weight is None


def test_a_chunk_has_an_action(data):
    with pytest.raises(ValueError, match="expected a chunk of at least one action, found 0"):
        Windows(data, Schedule(data.lengths, 2, 4, seed=0), chunk=0)


def test_a_constant_dimension_stays_finite():
    values = torch.tensor([[0.0, 5.0], [2.0, 5.0]])
    normaliser = Normaliser.fit(values, floor=0.01)
    assert torch.equal(normaliser(values), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    assert torch.equal(normaliser.inverse(normaliser(values)), values)
    assert normaliser(torch.tensor([0.0, 5.001]))[1] < 0.11  # a millimetre is not a hundred deviations
    assert set(normaliser.state_dict()) == {"mean", "std"}


def test_a_normaliser_needs_a_floor():
    with pytest.raises(ValueError, match="expected floor > 0 and rows, found 0"):
        Normaliser.fit(torch.ones(2, 2), floor=0.0)
