"""The contract of a memory: seven properties that every member must have, and mutants that must fail them.

A new memory adds one line to MEMBERS. Legend: B rows, T ticks, N tokens, D width.
"""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engram import carry as carries
from engram.carry import Carry
from engram.memory.bank import Bank
from engram.memory.base import Memory
from engram.memory.frames import FirstFrame, LastFrames
from engram.memory.recurrent import SPREAD_FLOOR, Recurrent

B, T, N, D = 3, 7, 4, 8
MEMBERS: dict[str, Callable[[], Memory]] = {
    "plain": lambda: Recurrent(N, D, "plain"),
    "gated": lambda: Recurrent(N, D, "gated"),
    "ema": lambda: Recurrent(N, D, 0.3),
    "scaled": lambda: standardised(Recurrent(N, D, "gated", scale=4.0)),
    "first-frame": lambda: FirstFrame(N, D),
    "last-frames": lambda: LastFrames(3, N, D),
    "bank": lambda: loud(Bank((N - 1, 1), D, capacity=3, heads=2)),
    "bank-fifo-apart": lambda: loud(Bank((N - 1, 1), D, capacity=2, merge="fifo", aligned=False, form="paper")),
}


def standardised(memory: Recurrent) -> Recurrent:
    """As after its calibration."""
    memory.standard.fit(1 + 2 * torch.randn(9, N, D))
    return memory


def loud(bank: Bank) -> Bank:
    """One that says something: an untrained bank leaves the present as it is."""
    for weight in bank.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return bank


class OnSelf(Recurrent):
    """Mutant: keeps the state on the module and ignores the carry (a buffer that some `reset` would have to clear)."""

    def __init__(self):
        super().__init__(N, D, "gated")
        self.state = torch.zeros(2 * B, N, D)

    def write(self, carry: Carry, x_BND: Tensor, tick_B: Tensor, mask_B: Tensor) -> Carry:
        rows = len(x_BND)
        self.state[:rows] = super().write({self.KEY: self.state[:rows].clone()}, x_BND, tick_B, mask_B)[self.KEY]
        return carry

    def read(self, carry: Carry, query_BND: Tensor, tick_B: Tensor) -> tuple[Tensor, Tensor]:
        return super().read({self.KEY: self.state[: len(tick_B)].clone()}, query_BND, tick_B)


class Leaky(Recurrent):
    """Mutant: a little of every row reaches all others (a statistic taken over the batch)."""

    def __init__(self):
        super().__init__(N, D, "gated")

    def write(self, carry: Carry, x_BND: Tensor, tick_B: Tensor, mask_B: Tensor) -> Carry:
        return super().write(carry, x_BND - 0.1 * x_BND.mean(0), tick_B, mask_B)


def noise(seed: int = 0) -> Tensor:
    return torch.randn(B, T, N, D, generator=torch.Generator().manual_seed(seed))


def begins(*places: tuple[int, int]) -> Tensor:
    """`first` (B,T): every row at tick 0, and the (row, tick) given."""
    first = torch.zeros(B, T, dtype=torch.bool)
    first[:, 0] = True
    for row, tick in places:
        first[row, tick] = True
    return first


def ticks_of(first_BT: Tensor) -> Tensor:
    """Tick within the episode, as `first` says."""
    at = torch.arange(first_BT.shape[1]).expand(first_BT.shape)
    return at - torch.where(first_BT, at, 0).cummax(1).values


def step(memory: Memory, carry: Carry, x_BND: Tensor, tick_B: Tensor, first_B: Tensor) -> tuple[Carry, Tensor]:
    """What a policy does at one tick: forget, read, write what was seen and read; then what can be read afterwards."""
    carry = carries.where(first_B, memory.init(len(x_BND)), carry)
    x_BND = x_BND + read(memory, carry, x_BND, tick_B).mean(1, keepdim=True)[..., :D]
    carry = memory.write(carry, x_BND, tick_B, torch.ones_like(first_B))
    return carry, read(memory, carry, x_BND, tick_B)


def read(memory: Memory, carry: Carry, x_BND: Tensor, tick_B: Tensor) -> Tensor:
    """Tokens with their validity as one more number; those that are not valid are zeros."""
    tokens_BMD, ok_BM = memory.read(carry, x_BND, tick_B)
    return torch.cat([tokens_BMD * ok_BM.unsqueeze(-1), ok_BM.unsqueeze(-1).float()], -1)


@torch.no_grad()
def scan(memory: Memory, x_BTND: Tensor, first_BT: Tensor, carry: Carry | None = None, start: int = 0):
    """Final carry and reads (B,T,...) of ticks start.. of a window."""
    tick_BT = ticks_of(first_BT)

    def at(carry: Carry, t: int) -> tuple[Carry, Tensor]:
        return step(memory, carry, x_BTND[:, start + t], tick_BT[:, start + t], first_BT[:, start + t])

    return carries.scan(at, memory.init(len(x_BTND)) if carry is None else carry, x_BTND.shape[1] - start)


def near(a: Carry | Tensor, b: Carry | Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def differ(a: Tensor, b: Tensor) -> None:
    assert not torch.allclose(a, b, atol=1e-4), "expected a difference"


@torch.no_grad()
def streaming_is_scan(memory: Memory) -> None:
    x, first = noise(), begins((1, 3))
    tick, carry, reads = ticks_of(first), memory.init(B), []
    for t in range(T):
        carry, out = step(memory, carry, x[:, t], tick[:, t], first[:, t])
        reads.append(out)
    whole, expected = scan(memory, x, first)
    near(carry, whole)
    near(torch.stack(reads, 1), expected)


def split_is_whole(memory: Memory) -> None:
    x, first = noise(), begins((1, 4))
    whole, expected = scan(memory, x, first)
    middle, before = scan(memory, x[:, :3], first[:, :3])
    scan(memory, noise(7), first)  # another episode in between is nobody's business
    end, after = scan(memory, x, first, middle, start=3)
    near(end, whole)
    near(torch.cat([before, after], 1), expected)


def first_forgets_one_row(memory: Memory) -> None:
    x = noise()
    _, plain = scan(memory, x, begins())
    _, reads = scan(memory, x, begins((1, 4)))
    _, fresh = scan(memory, x[:, 4:], begins()[:, : T - 4])
    near(reads[1, 4:], fresh[1])
    for row in (0, 2):
        near(reads[row], plain[row])
        differ(reads[row, 4], fresh[row, 0])


def rows_are_independent(memory: Memory) -> None:
    x, other = noise(), noise()
    other[2] += 1
    (_, a), (_, b) = scan(memory, x, begins()), scan(memory, other, begins())
    near(a[:2], b[:2])
    differ(a[2], b[2])


def later_changes_nothing_earlier(memory: Memory) -> None:
    x, other = noise(), noise()
    other[:, 5:] += 1
    (_, a), (_, b) = scan(memory, x, begins()), scan(memory, other, begins())
    near(a[:, :5], b[:, :5])


def carry_shape_is_closed(memory: Memory) -> None:
    start = memory.init(B)
    after, _ = scan(memory, noise()[:, :1], begins()[:, :1])
    assert all(key.startswith("memory/") for key in start)
    assert {k: (v.shape, v.dtype) for k, v in after.items()} == {k: (v.shape, v.dtype) for k, v in start.items()}


@torch.no_grad()
def sessions_interleave(memory: Memory) -> None:
    x, first = noise(), begins()
    whole, expected = scan(memory, x, first)
    sessions = [memory.init(1) for _ in range(B)]
    done, reads = [0] * B, torch.empty_like(expected)
    for group in ([2], [0, 1], [2, 0], [1], [0, 1, 2], *[[2, 1, 0]] * T):
        group = [row for row in group if done[row] < T]
        if not group:
            continue
        xs = torch.stack([x[row, done[row]] for row in group])
        tick = torch.tensor([done[row] for row in group])
        carry, out = step(memory, carries.stack([sessions[row] for row in group]), xs, tick, tick == 0)
        for i, (row, own) in enumerate(zip(group, carries.unstack(carry), strict=True)):
            sessions[row], reads[row, done[row]] = own, out[i]
            done[row] += 1
    assert done == [T] * B
    near(carries.stack(sessions), whole)
    near(reads, expected)


CONTRACT = [
    streaming_is_scan,
    split_is_whole,
    first_forgets_one_row,
    rows_are_independent,
    later_changes_nothing_earlier,
    carry_shape_is_closed,
    sessions_interleave,
]


def made(make: Callable[[], Memory]) -> Memory:
    torch.manual_seed(0)
    return make()


@pytest.mark.parametrize("require", CONTRACT, ids=lambda f: f.__name__)
@pytest.mark.parametrize("member", MEMBERS)
def test_contract(member, require):
    require(made(MEMBERS[member]))


def caught(mutant: Callable[[], Memory]) -> set[str]:
    """The properties that a mutant does not have."""
    failed = set()
    for require in CONTRACT:
        try:
            require(made(mutant))
        except AssertionError:
            failed.add(require.__name__)
    return failed


def test_the_contract_catches_state_on_the_module():
    assert caught(OnSelf) == {require.__name__ for require in CONTRACT} - {"carry_shape_is_closed"}  # six of seven


def test_the_contract_catches_a_leak_across_rows():
    # three of seven: the others have the same rows on both sides
    assert caught(Leaky) == {"first_forgets_one_row", "rows_are_independent", "sessions_interleave"}


@pytest.mark.parametrize("member", MEMBERS)
@settings(max_examples=20)
@given(mask=st.lists(st.booleans(), min_size=T, max_size=T))
def test_a_masked_tick_leaves_no_trace(member, mask):
    memory, x = made(MEMBERS[member]), noise()[:1]
    tick = torch.zeros(1, dtype=torch.int64)
    carry = expected = memory.init(1)
    with torch.no_grad():
        for t, write in enumerate(mask):
            carry = memory.write(carry, x[:, t], tick + t, torch.tensor([write]))
            if write:
                expected = memory.write(expected, x[:, t], tick + t, torch.tensor([True]))
    assert carry.keys() == expected.keys()
    assert all(torch.equal(carry[key], expected[key]) for key in carry)


@pytest.mark.parametrize("member", MEMBERS)
@settings(max_examples=10)
@given(first=st.lists(st.lists(st.booleans(), min_size=T, max_size=T), min_size=B, max_size=B))
def test_a_row_holds_what_came_since_its_own_first(member, first):
    memory, x = made(MEMBERS[member]), noise()
    first_BT = torch.tensor(first)
    first_BT[:, 0] = True
    carry, _ = scan(memory, x, first_BT)
    for row, own in enumerate(carries.unstack(carry)):
        since = int(first_BT[row].nonzero().max())
        alone, _ = scan(memory, x[row : row + 1, since:], first_BT[row : row + 1, since:])
        near(own, alone)


@pytest.mark.parametrize("member", MEMBERS)
def test_neither_init_nor_write_changes_what_it_was_given(member):
    memory, x = made(MEMBERS[member]), noise()
    carry = memory.init(B)
    kept = {key: value.clone() for key, value in carry.items()}
    memory.write(carry, x[:, 0], torch.zeros(B, dtype=torch.int64), torch.ones(B, dtype=torch.bool))
    assert all(torch.equal(carry[key], kept[key]) for key in kept)
    assert all(torch.equal(value, kept[key]) for key, value in memory.init(B).items())


def test_first_frame_keeps_the_first():
    _, reads = scan(FirstFrame(N, D), noise(), begins((1, 3)))
    for row, tick, first in ((0, 6, 0), (1, 2, 0), (1, 6, 3)):
        near(reads[row, tick, :, :D], noise()[row, first])


def test_last_frames_keeps_the_last_oldest_first_and_says_which_are_there():
    memory, x, ones = LastFrames(3, N, D), noise(), torch.ones(B, dtype=torch.bool)
    carry = memory.init(B)
    for t in range(T):
        carry = carries.where(ones & (t == 5) & (torch.arange(B) == 1), memory.init(B), carry)
        carry = memory.write(carry, x[:, t], torch.full((B,), t), ones)
    reads = read(memory, carry, x[:, 0], torch.full((B,), T))
    near(reads[0, :, :D], x[0, 4:7].flatten(0, 1))
    near(reads[1, N:, :D], x[1, 5:7].flatten(0, 1))
    assert reads[1, :, D].tolist() == [0.0] * N + [1.0] * 2 * N


def test_an_ema_at_its_ends_is_the_plain_rule_and_no_memory():
    x, first = noise(), begins()
    frozen, whole = made(lambda: Recurrent(N, D, 0.0)), made(lambda: Recurrent(N, D, 1.0))
    near(scan(frozen, x, first)[0], frozen.init(B))
    near(scan(whole, x, first)[0], scan(made(MEMBERS["plain"]), x, first)[0])


def test_memory_is_read_larger_than_it_is_kept():
    small, large = made(lambda: Recurrent(N, D, "plain")), made(lambda: Recurrent(N, D, "plain", scale=4.0))
    carry, x, tick = small.init(B), noise()[:, 0], torch.zeros(B)
    near(large.read(carry, x, tick)[0], 4 * small.read(carry, x, tick)[0])
    near(large.write(carry, x, tick, torch.ones(B, dtype=torch.bool))[Recurrent.KEY], x)


def test_what_is_written_is_centred_and_scaled_once_it_was_fitted():
    memory, samples = made(lambda: Recurrent(N, D, "plain")), 5 + 3 * noise().flatten(0, 1)
    samples[:, 0, 0] /= 300  # a channel that hardly moves
    carry, write = memory.init(len(samples)), torch.ones(len(samples), dtype=torch.bool)
    near(memory.write(carry, samples, write, write)[Recurrent.KEY], samples)
    memory.standard.fit(samples)
    written = memory.write(carry, samples, write, write)[Recurrent.KEY]
    near(written.mean(0), torch.zeros(N, D))
    deviation = torch.ones(N, D)
    deviation[0, 0] = samples[:, 0, 0].std(correction=0) / SPREAD_FLOOR
    assert deviation[0, 0] < 0.5
    near(written.std(0, unbiased=False), deviation)
    fresh = made(lambda: Recurrent(N, D, "plain"))
    fresh.load_state_dict(memory.state_dict())
    near(fresh.write(carry, samples, write, write)[Recurrent.KEY], written)


@pytest.mark.parametrize("rule", ["plain", "gated", 0.3])
class TestGradients:
    """A toy cell, x = tanh(read + input), so that what is written depends on what was read."""

    def initial_gradient(self, rule: str | float, first: tuple[int, ...], cut: int) -> Tensor | None:
        """Gradient on the initial memory of the last of five reads; the carry is detached before tick `cut`."""
        memory = made(lambda: Recurrent(N, D, rule))
        carry, ones = memory.init(1), torch.ones(1, dtype=torch.bool)
        for t in range(5):
            carry = carries.detach(carry) if t == cut else carry
            carry = carries.where(ones & (t in first), memory.init(1), carry)
            tokens, _ = memory.read(carry, noise()[:1, t], torch.tensor([t]))
            carry = memory.write(carry, (tokens + noise()[:1, t]).tanh(), torch.tensor([t]), ones)
        return torch.autograd.grad(tokens.square().sum(), memory.initial, allow_unused=True, materialize_grads=True)[0]

    def test_none_reaches_the_initial_memory_past_a_detach(self, rule):
        assert not self.initial_gradient(rule, first=(0,), cut=3).any()

    def test_it_does_when_an_episode_begins_after_the_detach(self, rule):
        past_a_write = self.initial_gradient(rule, first=(3,), cut=3)
        assert past_a_write.any() == isinstance(rule, str)  # an ema lets no gradient through a write
        assert self.initial_gradient(rule, first=(4,), cut=3).any()


@pytest.mark.parametrize("rule", ["medium", 1.5, -0.1, float("nan"), 1, None])
def test_an_unknown_rule_is_refused(rule):
    with pytest.raises((ValueError, TypeError), match=r"rule"):
        Recurrent(N, D, rule)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="at least 1, found 0"):
        Recurrent(0, D)
    with pytest.raises(ValueError, match="memory scale: expected a finite number above 0, found 0.0"):
        Recurrent(N, D, scale=0.0)
    with pytest.raises(ValueError, match="at least 1, found 0"):
        LastFrames(0, N, D)
