"""The bank: every form equals the plain reference (benchmarks/plain_bank.py), and what it says of itself is true.

Legend: B rows, T ticks, L entries, N tokens, D width.
"""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.plain_bank import PlainBank, play
from engram import carry as carries
from engram.carry import Carry
from engram.memory import shelf as shelves
from engram.memory.bank import Bank
from engram.memory.shelf import RULES, Shelf, pick

B, T, L, D = 3, 14, 4, 16
STREAMS = (3, 1)
FORMS = [
    *({"merge": merge, "time": time} for merge, time in product(RULES, ("age", "index", "none"))),
    *({"aligned": False, "merge": merge} for merge in RULES),
    *({"form": "paper", "blocks": 2, "fusion": fusion} for fusion in ("gate", "add")),
    {"form": "paper", "blocks": 2, "merge": "plain", "time": "index", "aligned": False, "write": "fused"},  # the paper
    {"write": "fused"},
    {"heads": 1, "blocks": 2},
    {"fusion": "add"},
    {"capacity": 1},
    {"capacity": 30},  # never full
]


def bank(seed: int = 0, **options) -> Bank:
    """A bank in which nothing is silent."""
    torch.manual_seed(seed)
    made = Bank(STREAMS, D, **{"capacity": L, "heads": 2} | options)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return made


def window(seed: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, ticks, where episodes begin (row 1 twice, row 2 goes on from before) and where is written."""
    torch.manual_seed(seed)
    first_BT = torch.zeros(B, T, dtype=torch.bool)
    first_BT[0, 0] = first_BT[1, 0] = first_BT[1, 5] = True
    tick_BT = 3 + 2 * torch.arange(T).expand(B, T)
    return torch.randn(B, T, sum(STREAMS), D), tick_BT, first_BT, torch.rand(B, T) < 0.85


def begun(plain: PlainBank) -> Carry:
    """Six ticks of an episode in every row, in the carry and in the reference."""
    x_BTND = torch.randn(B, 6, sum(STREAMS), D)
    first_BT, write_BT = torch.arange(6).expand(B, 6) == 0, torch.ones(B, 6, dtype=torch.bool)
    tick_BT = torch.arange(6).expand(B, 6) - 9
    play(plain, x_BTND, tick_BT, first_BT, write_BT)
    return carries.detach(plain.bank.window(plain.bank.init(B), x_BTND, tick_BT, first_BT, write_BT)[1])


def tick_by_tick(made: Bank, carry: Carry, x_BTND, tick_BT, first_BT, write_BT) -> tuple[Tensor, Carry]:
    """The contract of a memory, as a session lives it."""
    fused = []
    for t in range(T):
        carry = carries.where(first_BT[:, t], made.init(B), carry)
        fused.append(made.read(carry, x_BTND[:, t], tick_BT[:, t])[0])
        written = fused[-1] if made.write_fused else x_BTND[:, t]
        carry = made.write(carry, written, tick_BT[:, t], write_BT[:, t])
    return torch.stack(fused, 1), carry


@pytest.mark.parametrize("options", FORMS, ids=lambda options: "-".join(f"{k}={v}" for k, v in options.items()))
def test_a_window_and_its_ticks_equal_the_plain_reference_values_and_gradients(options):
    made = bank(**options)
    plain = PlainBank(made)
    carry, (x, *rest) = begun(plain), window()
    found = []
    for run in (lambda x: made.window(carry, x, *rest), lambda x: tick_by_tick(made, carry, x, *rest)):
        leaf = x.clone().requires_grad_()
        fused, after = run(leaf)
        found.append((fused, after, gradients(made, leaf, fused)))
    leaf = x.clone().requires_grad_()
    expected = play(plain, leaf, *rest)
    wanted = gradients(made, leaf, expected)
    for fused, _, grads in found:
        torch.testing.assert_close(fused, expected, atol=1e-5, rtol=0)
        for grad, reference in zip(grads, wanted, strict=True):
            torch.testing.assert_close(grad, reference, atol=1e-5 * max(1.0, float(reference.abs().max())), rtol=0)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-5, rtol=0)


def gradients(made: Bank, leaf: Tensor, fused: Tensor) -> list[Tensor]:
    """Of a random function of what was read, for all weights and the tokens; zeros where nothing depends on one."""
    made.zero_grad()
    weight = torch.randn(fused.shape, generator=torch.Generator().manual_seed(5))
    (fused * weight).sum().backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in (*made.parameters(), leaf)]


@pytest.mark.parametrize("options", [{"heads": 2}, {"form": "paper", "blocks": 2, "aligned": False}])
def test_a_group_equals_its_ticks(options):
    # All rows begin at the first tick, write at all and never fill the bank: no slot is looked up.
    made, (x, tick, *_) = bank(capacity=T, **options), window()
    first, write = torch.arange(T).expand(B, T) == 0, torch.ones(B, T, dtype=torch.bool)
    found = []
    for run in (made.window, lambda *args: tick_by_tick(made, *args)):
        leaf = x.clone().requires_grad_()
        fused, after = run(made.init(B), leaf, tick, first, write)
        kept = [after[key] for key in sorted(after)]
        found.append([fused.detach(), *kept, *gradients(made, leaf, fused)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * max(1.0, float(other[other.isfinite()].abs().max())), rtol=0)


@settings(max_examples=25, deadline=None)
@given(rule=st.sampled_from(RULES), slots=st.integers(1, 5), seed=st.integers(0, 99))
def test_what_is_kept_of_likeness_equals_comparing_all_neighbours(rule, slots, seed):
    rng = torch.Generator().manual_seed(seed)
    shelf, entries = shelves.empty(2, slots, "cpu"), torch.zeros(2, slots, 3, 8)
    for tick in range(9):
        new, last = torch.randn(2, 3, 8, generator=rng), ((shelf.writes > 0).sum(1) - 1).clamp(min=0)
        near = shelves.alike(pick(entries, last), new)
        move = shelves.plan(shelf, near, rule)
        entries = move.of(entries, new)

        def alike(i: Tensor, j: Tensor, entries: Tensor = entries) -> Tensor:
            return shelves.alike(pick(entries, i), pick(entries, j))

        shelf = shelves.moved(shelf, move, near, torch.full((2,), float(tick)), alike)
        torch.testing.assert_close(shelf.near, rescanned(shelf, entries))
        assert (shelf.writes > 0).sum(1).tolist() == [min(tick + 1, slots)] * 2
        assert not entries[shelf.writes == 0].any()


def rescanned(shelf: Shelf, entries: Tensor) -> Tensor:
    near = torch.full_like(shelf.near, -torch.inf)
    for row in range(len(near)):
        for slot in range(int((shelf.writes[row] > 0).sum()) - 1):
            near[row, slot] = shelves.alike(entries[row, slot : slot + 1], entries[row, slot + 1 : slot + 2])[0]
    return near


def filled(rule: str, numbers: list[float]) -> tuple[Bank, Carry]:
    """A bank of two entries of one token, into which the vectors (1, number, 0, ...) were written in turn."""
    made = Bank((1,), 8, capacity=2, merge=rule, heads=1)
    carry = made.init(1)
    for tick, number in enumerate(numbers):
        x = torch.zeros(1, 1, 8)
        x[..., 0], x[..., 1] = 1, number
        carry = made.write(carry, x, torch.tensor([tick]), torch.tensor([True]))
    return made, carry


def test_merged_entries_weigh_by_their_writes_or_half_and_half():
    # The second and the third are most alike, then what they became and the first; the fourth is another.
    numbers = [0.0, 0.3, 0.6, 9.0]
    for rule, value, time in (("weighted", 0.3, 1.0), ("plain", 0.225, 0.75)):
        _, carry = filled(rule, numbers)
        torch.testing.assert_close(carry["memory/entries0"][0, :, 0, 1], torch.tensor([value, 9.0]))
        torch.testing.assert_close(carry["memory/time0"][0], torch.tensor([time, 3.0]))
        assert carry["memory/writes0"][0].tolist() == [3, 1]
    _, carry = filled("fifo", numbers)
    assert carry["memory/entries0"][0, :, 0, 1].tolist() == pytest.approx([0.6, 9.0])
    assert carry["memory/written"].item() == 4


def test_a_fresh_bank_leaves_the_present_as_it_is():
    torch.manual_seed(0)
    made, x = Bank(STREAMS, D), torch.randn(B, sum(STREAMS), D)
    carry = made.write(made.init(B), torch.randn_like(x), torch.zeros(B).long(), torch.ones(B, dtype=torch.bool))
    torch.testing.assert_close(made.read(carry, x, torch.ones(B).long())[0], x)


def test_ages_are_what_counts_not_when_the_episode_began():
    x, tick, first, write = window()
    first[2, 0] = True
    late = tick + 1000
    for time, same in (("age", True), ("index", True), ("none", True)):
        made = bank(time=time)
        a, b = (made.window(made.init(B), x, when, first, write)[0] for when in (tick, late))
        assert torch.allclose(a, b, atol=1e-5) == same
    made, slow = bank(), 3 * tick  # entries three times as old
    a, b = (made.window(made.init(B), x, when, first, write)[0] for when in (tick, slow))
    assert not torch.allclose(a, b, atol=1e-3)


def test_nothing_that_is_stored_has_a_gradient():
    made, (x, *rest) = bank(), window()
    x.requires_grad_()
    fused, after = made.window(made.init(B), x, *rest)
    assert not any(value.requires_grad for value in after.values())
    (grad,) = torch.autograd.grad(fused[:, -1].sum(), x)
    assert not grad[:, :-1].any()
    assert grad[:, -1].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"capacity": 0}, r"capacity \(L\): expected at least 1 entry, found 0"),
        ({"streams": ()}, r"streams: expected at least one, .* found \(\)"),
        ({"streams": (3, 0)}, r"streams: .* found \(3, 0\)"),
        ({"heads": 3}, "heads: expected a divisor of 16, found 3"),
    ],
)
def test_an_impossible_bank_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Bank(**{"streams": STREAMS, "width": D} | options)
