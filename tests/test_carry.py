"""The carry: rows are chosen, stacked and taken apart without touching one another."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engram import carry as carries


def some(rows: int, seed: int = 0) -> carries.Carry:
    rng = torch.Generator().manual_seed(seed)
    return {
        "memory/tokens": torch.randn(rows, 3, 4, generator=rng),
        "memory/written": torch.rand(rows, generator=rng) > 0.5,
        "expert/count": torch.randint(0, 9, (rows, 2), generator=rng),
        "now/kv": torch.randn(rows, 5, generator=rng),
    }


def same(a: carries.Carry, b: carries.Carry) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


@given(st.lists(st.booleans(), min_size=1, max_size=6))
def test_where_chooses_row_by_row(mask):
    yes, no = some(len(mask), 1), some(len(mask), 2)
    rows = carries.unstack(carries.where(torch.tensor(mask), yes, no))
    for chosen, row, a, b in zip(mask, rows, carries.unstack(yes), carries.unstack(no), strict=True):
        assert same(row, a if chosen else b)


def test_where_keeps_gradients_apart():
    yes, no = torch.ones(2, 3, requires_grad=True), torch.ones(2, 3, requires_grad=True)
    carries.where(torch.tensor([True, False]), {"memory/x": yes}, {"memory/x": no})["memory/x"].sum().backward()
    assert yes.grad.tolist() == [[1.0] * 3, [0.0] * 3]
    assert no.grad.tolist() == [[0.0] * 3, [1.0] * 3]


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_unstack_undoes_stack(sizes):
    parts = [some(size, seed) for seed, size in enumerate(sizes)]
    whole = carries.stack(parts)
    assert all(len(value) == sum(sizes) for value in whole.values())
    assert same(carries.stack(carries.unstack(whole)), whole)
    assert all(same(a, b) for a, b in zip(carries.unstack(parts[0]), carries.unstack(whole), strict=False))


def test_nothing_stays_nothing():
    nothing: carries.Carry = {}
    assert carries.where(torch.tensor([True]), nothing, nothing) == carries.detach(nothing) == {}
    assert carries.stack([nothing, nothing]) == {}
    assert carries.unstack(nothing) == []


def test_prefixes_say_lifetimes():
    carry = some(2)
    assert carries.select(carry, "memory/").keys() == {"memory/tokens", "memory/written"}
    assert carries.select(carry, "expert/", "now/").keys() == {"expert/count", "now/kv"}
    assert carries.lasting(carry).keys() == carry.keys() - {"now/kv"}


def test_detach_cuts_history_and_keeps_values():
    carry = {"memory/x": torch.ones(1, 2, requires_grad=True) * 3}
    cut = carries.detach(carry)
    assert carry["memory/x"].requires_grad
    assert not cut["memory/x"].requires_grad
    assert same(carry, cut)


def test_scan_stacks_outputs_on_the_second_axis():
    def step(carry, t):
        carry = {"memory/x": carry["memory/x"] + t}
        return carry, carry["memory/x"]

    carry, out = carries.scan(step, {"memory/x": torch.zeros(2, 1)}, 4)
    assert out[:, :, 0].tolist() == [[0, 1, 3, 6]] * 2
    assert carry["memory/x"].tolist() == [[6], [6]]


def test_a_mask_of_another_rank_is_refused_under_test():
    with pytest.raises(Exception, match=r"(?i)mask_B"):
        carries.where(torch.ones(2, 1, dtype=torch.bool), some(2), some(2))
