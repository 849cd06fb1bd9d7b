"""Intervals and tests of success rates: known values, and what must hold for all of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.stats import crossed_bootstrap, mcnemar, mean, wilson

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
outcomes = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60)


@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (190, 200, 0.9104, 0.9726),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_gives_published_values(successes, episodes, low, high):
    assert wilson(successes, episodes) == pytest.approx((low, high), abs=1e-4)


@given(counts)
def test_wilson_holds_the_rate_and_mirrors(count):
    successes, episodes = count
    low, high = wilson(successes, episodes)
    assert 0 <= low <= successes / episodes <= high <= 1
    assert wilson(episodes - successes, episodes) == pytest.approx((1 - high, 1 - low))


@given(counts)
def test_wilson_narrows_with_episodes_and_widens_with_confidence(count):
    successes, episodes = count
    low, high = wilson(successes, episodes)
    more_low, more_high = wilson(4 * successes, 4 * episodes)
    sure_low, sure_high = wilson(successes, episodes, confidence=0.99)
    assert more_high - more_low < high - low < sure_high - sure_low


def test_wilson_refuses_more_successes_than_episodes():
    with pytest.raises(ValueError, match="found 3 of 2"):
        wilson(3, 2)


@pytest.mark.parametrize(("won", "lost", "p"), [(0, 0, 1.0), (5, 0, 0.0625), (10, 2, 0.03857421875), (3, 3, 1.0)])
def test_mcnemar_is_the_two_sided_binomial(won, lost, p):
    ours, theirs = [True] * won + [False] * lost, [False] * won + [True] * lost
    assert mcnemar(ours, theirs) == pytest.approx(p)


@given(outcomes, st.booleans())
def test_mcnemar_is_symmetric_and_ignores_agreement(pairs, both):
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    p = mcnemar(ours, theirs)
    assert 0 < p <= 1
    assert mcnemar(theirs, ours) == p
    assert mcnemar([*ours, both], [*theirs, both]) == p


def test_mcnemar_refuses_unpaired_outcomes():
    with pytest.raises(ValueError, match="found 1 and 2 episodes"):
        mcnemar([True], [True, False])


tables = st.integers(1, 8).flatmap(
    lambda e: st.lists(st.lists(st.booleans(), min_size=e, max_size=e), min_size=1, max_size=4)
)


@given(tables)
def test_crossed_bootstrap_is_never_narrower_than_independent_episodes(table):
    low, high = crossed_bootstrap(table, draws=200)
    successes, episodes = sum(map(sum, table)), len(table) * len(table[0])
    least, most = wilson(successes, episodes)
    assert 0 <= low <= least <= successes / episodes <= most <= high <= 1
    assert crossed_bootstrap(table, draws=200) == (low, high)


def test_crossed_bootstrap_draws_training_seeds_too():
    luck = [[True] * 200, [False] * 200, [True] * 200]
    low, high = crossed_bootstrap(luck)
    assert (low, high) == (0.0, 1.0)


def test_crossed_bootstrap_draws_episodes_too():
    hard = [[True] * 3 + [False] * 3] * 50  # every policy fails on the same half: fifty of them tell no more than one
    low, high = crossed_bootstrap(hard)
    assert low < 0.2
    assert high > 0.8


@pytest.mark.parametrize("table", [[], [[]], [[True], [True, False]]])
def test_crossed_bootstrap_refuses_what_is_no_table(table):
    with pytest.raises(ValueError, match="tested on the same episodes"):
        crossed_bootstrap(table)


def test_mean_of_nothing_is_none():
    assert mean([]) is None
    assert mean([True, False]) == 0.5
