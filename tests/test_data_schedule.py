"""The schedule: a pure function that loses no tick, shows no episode twice in an epoch, and can start anywhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engram.data.schedule import Episodes, Groups, Schedule, Shuffled

few = settings(max_examples=40)


@st.composite
def plans(draw):
    """Lengths, slots of a rank and number of ranks, with an episode for every slot."""
    slots, world = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    lengths = draw(st.lists(st.integers(1, 9), min_size=slots * world, max_size=20))
    return np.array(lengths), slots, world


def streams(lengths, slots, world, ticks, steps, seed=0, **options):
    """The valid (episode, tick) pairs of every slot of every rank, in order."""
    out = []
    for rank in range(world):
        schedule = Schedule(lengths, slots, ticks, seed, rank, world, **options)
        blocks = [schedule[step] for step in range(steps)]
        for slot in range(slots):
            pairs = [
                (int(e), int(t), bool(f))
                for b in blocks
                for e, t, f, v in zip(b.episode[slot], b.tick[slot], b.first[slot], b.valid[slot], strict=True)
                if v
            ]
            out.append(pairs)
    return out


@few
@given(plans(), st.integers(1, 7), st.booleans())
def test_a_slot_plays_whole_episodes_back_to_back(plan, ticks, stagger):
    lengths, slots, world = plan
    for pairs in streams(lengths, slots, world, ticks, steps=30, stagger=stagger):
        expected = 0
        for before, (episode, tick, first) in zip([None, *pairs], pairs, strict=False):
            assert tick == expected
            assert first == (tick == 0)
            assert first or before[0] == episode
            expected = tick + 1 if tick + 1 < lengths[episode] else 0


@few
@given(plans(), st.integers(0, 3))
def test_an_epoch_shows_every_episode_to_one_slot(plan, seed):
    lengths, slots, world = plan
    total = len(lengths)
    begun = streams(lengths, slots, world, 1, steps=3 * int(lengths.sum()), seed=seed)
    shown = [[e for e, _, first in pairs if first] for pairs in begun]
    at = [0] * len(shown)
    for epoch in range(2):
        seen = []
        for slot, episodes in enumerate(shown):
            count = len(range((slot - epoch) % len(shown), total, len(shown)))  # its share of the deal
            seen += episodes[at[slot] : at[slot] + count]
            at[slot] += count
        assert sorted(seen) == list(range(total))


@few
@given(plans(), st.integers(0, 3))
def test_an_epoch_of_whole_episodes_shows_each_once(plan, seed):
    lengths, slots, world = plan
    total, size = len(lengths), slots * world
    ranks = [Episodes(lengths, slots, seed, rank, world) for rank in range(world)]
    shown = [e for step in range(3 * total // size + 1) for rank in ranks for e in rank[step].episode[:, 0].tolist()]
    for epoch in range(3):
        assert sorted(shown[epoch * total : (epoch + 1) * total]) == list(range(total))


def test_episodes_of_like_length_share_a_step():
    lengths = np.random.default_rng(0).integers(13, 46, 1000)
    schedule = Episodes(lengths, 16, seed=0)
    full = [schedule[step].trimmed().valid.mean() for step in range(3 * schedule.steps_per_epoch)]
    assert np.mean(full) > 0.9


@few
@given(plans(), st.integers(1, 7), st.integers(0, 200), st.booleans())
def test_any_step_can_be_computed_first(plan, ticks, step, stagger):
    lengths, slots, _ = plan
    played = Schedule(lengths, slots, ticks, seed=1, stagger=stagger)
    for earlier in range(max(0, step - 3), step):
        played[earlier]
    fresh = Schedule(lengths, slots, ticks, seed=1, stagger=stagger)
    require_same(played[step], fresh[step])


@few
@given(plans(), st.integers(0, 200))
def test_any_step_of_whole_episodes_can_be_computed_first(plan, step):
    lengths, slots, _ = plan
    played = Episodes(lengths, slots, seed=1)
    for earlier in range(max(0, step - 3), step):
        played[earlier]
    require_same(played[step], Episodes(lengths, slots, seed=1)[step])


def require_same(one, two):
    for name in ("episode", "tick", "first", "valid"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


@few
@given(plans())
def test_an_episode_window_is_padded_at_its_end(plan):
    lengths, slots, _ = plan
    block, longest = Episodes(lengths, slots, seed=0)[4], lengths.max()
    length = lengths[block.episode[:, 0]]
    np.testing.assert_array_equal(block.valid.sum(1), length)
    np.testing.assert_array_equal(block.tick, np.minimum(np.arange(longest), length[:, None] - 1))
    np.testing.assert_array_equal(block.first, np.arange(longest) == np.zeros((slots, 1)))


@few
@given(plans(), st.integers(1, 5))
def test_shuffled_frames_appear_once_per_epoch(plan, ticks):
    lengths, slots, world = plan
    total, size = int(lengths.sum()), slots * world * ticks
    ranks = [Shuffled(lengths, slots, ticks, 0, rank, world) for rank in range(world)]
    shown = []
    for step in range(2 * total // size + 2):
        for block in (schedule[step] for schedule in ranks):
            assert block.first.all()
            assert block.valid.all()
            shown += list(zip(block.episode.ravel().tolist(), block.tick.ravel().tolist(), strict=True))
    every = [(e, t) for e, length in enumerate(lengths) for t in range(length)]
    assert sorted(shown[:total]) == every
    assert sorted(shown[total : 2 * total]) == every
    assert total < 20 or shown[:total] != shown[total : 2 * total]


@few
@given(plans(), st.integers(1, 7), st.integers(0, 5))
def test_a_group_is_some_ticks_of_an_episode_in_order(plan, ticks, step):
    lengths, slots, world = plan
    for rank in range(world):
        found = Groups(lengths, slots, ticks, 0, rank, world)[step]
        again = Groups(lengths, slots, ticks, 0, rank, world)[step]
        assert np.array_equal(found.tick, again.tick)
        for row in range(slots):
            episode, count = int(found.episode[row, 0]), int(found.valid[row].sum())
            assert (found.episode[row] == episode).all()
            assert count == min(ticks, lengths[episode])
            assert (np.diff(found.tick[row, :count]) > 0).all()  # in order, none twice
            assert 0 <= found.tick[row].min() <= found.tick[row].max() < lengths[episode]
            assert found.first[row].tolist() == [t == 0 for t in range(ticks)]


def test_groups_show_every_episode_once_an_epoch_and_any_tick_sooner_or_later():
    lengths = np.array([9, 8, 7, 9])
    groups = Groups(lengths, 2, 4, seed=1)
    seen = [groups[step] for step in range(80)]
    for epoch in range(40):
        shown = [int(e) for part in seen[2 * epoch : 2 * epoch + 2] for e in part.episode[:, 0]]
        assert sorted(shown) == [0, 1, 2, 3]
    pairs = {(int(e), int(t)) for part in seen for e, t in zip(part.episode.flat, part.tick.flat, strict=True)}
    assert pairs == {(e, t) for e, length in enumerate(lengths) for t in range(length)}


def test_staggered_slots_are_in_different_phases():
    lengths = np.full(40, 40)
    together, apart = (Schedule(lengths, 8, 8, seed=0, stagger=s)[20] for s in (False, True))
    assert len(set(together.tick[:, 0].tolist())) == 1
    assert len(set(apart.tick[:, 0].tolist())) == 8


def test_seeds_and_epochs_give_other_orders():
    lengths = np.full(50, 3)
    one, two = (Episodes(lengths, 5, seed=seed) for seed in (0, 1))
    order = [one[step].episode[:, 0].tolist() for step in range(20)]
    assert order != [two[step].episode[:, 0].tolist() for step in range(20)]
    assert order[:10] != order[10:]
    assert one.steps_per_epoch == 10


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([5, 5, 5], 2, 4, 0, 0, 2), r"expected at least 4 episodes, one per slot \(2 slots x 2 ranks\), found 3; use"),
        (([], 1, 4, 0), "expected episodes of at least one tick"),
        (([5], 1, 0, 0), "expected slots >= 1 and ticks >= 1, found 1 and 0"),
        (([5], 1, 4, 0, 1, 1), "expected 0 <= rank < world, found rank 1 of 1"),
    ],
)
def test_an_impossible_schedule_is_refused(arguments, sentence):
    lengths, *rest = arguments
    with pytest.raises(ValueError, match=sentence):
        Schedule(np.array(lengths, np.int64), *rest)
