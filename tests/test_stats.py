"""Intervals and tests of success rates: known values, and what must hold for all of them."""

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.stats import cluster_bootstrap, mcnemar, mean, wilson

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


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=8), min_size=1, max_size=5))
def test_bootstrap_holds_the_mean_and_stays_in_range(clusters):
    low, high = cluster_bootstrap(clusters, draws=200)
    means = [fmean(cluster) for cluster in clusters]
    assert min(means) - 1e-12 <= low <= high <= max(means) + 1e-12
    assert cluster_bootstrap(clusters, draws=200) == (low, high)


def test_bootstrap_draws_clusters_and_not_episodes():
    luck = [[1] * 100, [0] * 100, [1] * 100]  # 300 episodes, three policies: what differs is the policy
    low, high = cluster_bootstrap(luck)
    alone_low, alone_high = wilson(200, 300)
    assert high - low > 3 * (alone_high - alone_low)


@pytest.mark.parametrize("clusters", [[], [[1.0], []]])
def test_bootstrap_refuses_nothing(clusters):
    with pytest.raises(ValueError, match="at least one cluster and none empty"):
        cluster_bootstrap(clusters)


def test_mean_of_nothing_is_none():
    assert mean([]) is None
    assert mean([True, False]) == 0.5
