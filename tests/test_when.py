"""When memory is written: the rules, and that data sets are thinned out by the same one."""

import fakes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data import record

from engram.data.lerobot import Dataset
from engram.data.schedule import Episodes
from engram.data.windows import Windows
from engram.memory.when import Every, Keyframes, due_in
from engram.train import keyframes

B = 2


def due_at(rule, pose_TP, first=(), valid=None) -> list[int]:
    """Ticks at which a row writes whose hand is at `pose`."""
    proprio = torch.as_tensor(np.asarray(pose_TP), dtype=torch.float32).unsqueeze(0)
    ticks = proprio.shape[1]
    at = torch.arange(ticks).unsqueeze(0)
    begins = torch.tensor([[t in first for t in range(ticks)]])
    there = torch.ones(1, ticks, dtype=torch.bool) if valid is None else torch.tensor([valid])
    return torch.nonzero(due_in(rule, rule.init(1, at.device), proprio, at, begins, there)[0][0]).flatten().tolist()


def still(ticks: int) -> np.ndarray:
    return np.zeros((ticks, 7))


def test_every_nth_tick():
    assert due_at(Every(3), still(8)) == [0, 3, 6]
    assert due_at(Every(), still(3)) == [0, 1, 2]
    assert due_at(Every(), still(3), valid=[True, False, True]) == [0, 2]


def test_a_hand_that_rests_writes_once_and_after_the_gap():
    assert due_at(Keyframes(gap=4), still(10)) == [0, 4, 8]
    assert due_at(Keyframes(), still(10), first=(5,)) == [0, 5]  # a new episode


def test_a_hand_that_moves_or_turns_far_enough_since_the_last_write_writes():
    slow, turning, far = still(9), still(9), still(3)
    slow[:, 0] = 0.004 * np.arange(9)  # 12 mm every three ticks
    turning[:, 5] = 0.3 * np.arange(9)
    far[1:, 5] = 2 * np.pi - 0.1  # a full turn but for 0.1 rad is near
    assert due_at(Keyframes(), slow) == [0, 3, 6]
    assert due_at(Keyframes(), turning) == [0, 2, 4, 6, 8]
    assert due_at(Keyframes(), far) == [0]
    assert due_at(Keyframes(), slow, valid=[True] * 3 + [False] + [True] * 5) == [0, 4, 7]  # padding moves nothing


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-0.02, 0.02), min_size=2, max_size=12), st.integers(1, 11))
def test_an_episode_holds_as_many_writes_as_its_rule_may_make(steps, gap):
    pose = np.zeros((len(steps), 7))
    pose[:, 0] = np.cumsum(steps)
    for rule in (Every(gap), Keyframes(gap=gap)):
        assert len(due_at(rule, pose)) in rule.writes(len(steps))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-0.02, 0.02), min_size=2, max_size=12), st.integers(1, 11))
def test_a_split_window_writes_where_the_whole_does(steps, cut):
    pose = np.zeros((len(steps), 7))
    pose[:, 0] = np.cumsum(steps)
    cut = min(cut, len(steps) - 1)
    rule, state = Keyframes(), torch.as_tensor(pose, dtype=torch.float32).unsqueeze(0)
    tick, none = torch.arange(len(steps)).unsqueeze(0), torch.zeros(1, len(steps), dtype=torch.bool)
    carry, parts = rule.init(1, tick.device), []
    for part in (slice(0, cut), slice(cut, None)):
        due, carry = due_in(rule, carry, state[:, part], tick[:, part], none[:, part], ~none[:, part])
        parts.append(due)
    assert torch.nonzero(torch.cat(parts, 1)[0]).flatten().tolist() == due_at(rule, pose)


def test_a_data_set_is_thinned_out_by_the_same_rule(tmp_path):
    data = Dataset(record(tmp_path / "demos", (5, 4, 6), fakes.SPEC))
    for kept, start, length in zip(keyframes(data), data.starts, data.lengths, strict=True):
        assert kept.tolist() == due_at(Keyframes(), data.state[start : start + length])


def test_what_is_shown_keeps_its_ticks_and_the_actions_of_all_ticks(tmp_path):
    data, kept = Dataset(record(tmp_path / "demos", (5, 4), fakes.SPEC)), [np.array([0, 3, 4]), np.array([1])]
    windows = Windows(data, Episodes(np.array([3, 1]), 2, seed=0), 2, kept=kept)
    window = windows[0]
    rows = {int(frames[0]): (frames, row) for row, frames in enumerate(window.frame.tolist())}
    frames, long = rows[0]
    assert frames == [0, 3, 4]
    assert window.obs.tick[long].tolist() == [0, 3, 4]
    assert torch.equal(window.target[long, 0], torch.from_numpy(data.action[:2]))  # of ticks 0 and 1
    assert window.target_ok[long].tolist() == [[True, True], [True, True], [True, False]]
    frames, short = rows[6]
    assert window.valid[short].tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Every(0), "every: expected at least 1 tick between writes, found 0"),
        (
            lambda: Keyframes(gap=0),
            "keyframes: expected distances of 0 or more and a gap of 1 or more, found .* 0 ticks",
        ),
        (lambda: due_at(Keyframes(), np.zeros((2, 3))), "x, y, z and three angles, found 3 numbers; write every n-th"),
    ],
)
def test_impossible_rules_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
