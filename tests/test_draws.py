"""Randomness from keys alone: known numbers, distributions, no relation between neighbours, rows as if alone."""

import math

import pytest
import torch

from engram.draws import integers, mix, normal, uniform

KEYS = torch.arange(2000)
MANY = normal(KEYS, 100)  # 200,000 numbers


def deviations(mean_of: torch.Tensor, expected: float) -> float:
    """How many standard errors the mean of independent numbers is away from what is expected."""
    return abs((mean_of.mean() - expected) / (mean_of.std() / math.sqrt(mean_of.numel()))).item()


def kolmogorov(sorted_share: torch.Tensor) -> float:
    """sqrt(n) times the largest distance between an empirical distribution and the true one (1.95: 1 in 1000)."""
    n = len(sorted_share)
    return math.sqrt(n) * max(
        (torch.arange(1, n + 1) / n - sorted_share).max(), (sorted_share - torch.arange(n) / n).max()
    )


def test_the_arithmetic_is_splitmix64():
    inverse = pow(0x9E3779B97F4A7C15, -1, 2**64)  # of the generator's step: a key counts the steps from state 0
    key = torch.tensor((1234567 * inverse % 2**64) - 2**64)
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]  # what the seed 1234567 gives
    assert [int(mix(key + i)) % 2**64 for i in range(3)] == published


def test_normal_has_the_moments_of_the_normal_distribution():
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0), (6, 15.0)):
        assert deviations(MANY.double() ** power, moment) < 4
    assert 4.0 < MANY.abs().max() < 6.8
    assert MANY.dtype == torch.float32


def test_distributions_pass_kolmogorov_and_smirnov():
    flat = MANY.double().flatten().sort().values
    assert kolmogorov(torch.special.ndtr(flat)) < 1.95
    assert kolmogorov(uniform(KEYS, 100).double().flatten().sort().values) < 1.95
    assert kolmogorov(torch.special.ndtr(1.01 * flat + 0.01)) > 1.95  # the check can tell


@pytest.mark.parametrize("lag", [1, 2, 7, 64])
def test_neighbouring_keys_and_places_have_nothing_in_common(lag):
    for near, far in ((MANY[lag:], MANY[:-lag]), (MANY[:, lag:], MANY[:, :-lag])):
        assert deviations(near * far, 0.0) < 4
        assert deviations((near**2 - 1) * (far**2 - 1), 0.0) < 4


def test_mixed_keys_have_nothing_in_common():
    for other in (normal(mix(KEYS, 0), 100), normal(mix(KEYS, 1), 100), normal(mix(mix(KEYS, 0)), 100)):
        assert deviations(MANY * other, 0.0) < 4


def test_one_bit_of_a_key_changes_half_of_all_bits():
    flipped = torch.stack([mix(KEYS) ^ mix(KEYS ^ (1 << bit)) for bit in range(63)])
    ones = torch.stack([flipped >> bit & 1 for bit in range(64)]).double().mean((1, 2))
    assert (ones - 0.5).abs().max() < 0.01


def test_keys_differ_by_order_and_by_every_part():
    a, b = KEYS[:50, None], KEYS[:50]
    assert len(mix(a, b).unique()) == len(mix(a, 3, b).unique()) == 2500
    assert not (mix(a, b) == mix(b, a)).fill_diagonal_(False).any()
    assert torch.equal(mix(a, 3), mix(a, torch.tensor(3)))
    extremes = torch.tensor([-(2**63), -1, 0, 2**63 - 1])
    assert len(mix(extremes).unique()) == 4


def test_rows_are_what_they_are_alone_whatever_the_shape():
    for shape in ((), (5,), (16, 7), (4, 16, 7)):
        whole = normal(KEYS, *shape)
        assert whole.shape == (2000, *shape)
        for first, rows in ((0, 1), (3, 2), (11, 17)):
            part = slice(first, first + rows)
            assert torch.equal(normal(KEYS[part], *shape), whole[part])
            assert torch.equal(uniform(KEYS[part], *shape), uniform(KEYS, *shape)[part])
    assert torch.equal(normal(KEYS.view(40, 50), 3), normal(KEYS, 3).view(40, 50, 3))
    assert torch.equal(normal(KEYS[:9], 2), normal(KEYS[:9], 5)[:, :2])


def test_uniform_and_integers_keep_within_their_bounds():
    drawn = uniform(KEYS, 100)
    assert 0 <= drawn.min() < 1e-4
    assert 1 - 1e-4 < drawn.max() < 1
    whole = integers(KEYS, 100, 100)
    counts = whole.flatten().bincount(minlength=100)
    assert len(counts) == 100
    assert 50 < ((counts - 2000) ** 2 / 2000).sum() < 160  # chi-squared with 99 degrees of freedom: 99 +- 14
    assert integers(KEYS, 2**31).max() < 2**31
    assert not integers(KEYS, 1).any()
    for high in (0, 2**31 + 1):
        with pytest.raises(ValueError, match=f"high: expected 1 to 2\\^31, found {high}"):
            integers(KEYS, high)
