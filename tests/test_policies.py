"""The contract of a policy: the seven properties of a memory, over observe, act and loss, for every design.

A new policy adds one line to DESIGNS. Legend: B rows, T ticks, N chunk length, A action.
"""

import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import fakes
import pytest
import torch
from torch import Tensor

from engram import carry as carries
from engram.carry import Carry
from engram.policies.base import Policy
from engram.policies.build import Design
from engram.policies.design import BankDesign
from engram.policies.memory_vla import MemoryVLA
from engram.types import Chunk, Observation, Window

B, T = 3, 6
MASKS = ("insulated", "full")
BANK = BankDesign(capacity=2, steps=2, draws=2)  # full at the third tick
BANKS = [("capacity", 0), ("write", "fused"), ("streams", "cognitive"), ("every", 2), ("when", "keyframes")]
DESIGNS = {
    **{f"memoryless-{mask}": Design(m=0, mask=mask, loss="l1") for mask in MASKS},
    **{f"uncarried-{mask}": Design(m=2, carried=False, mask=mask, loss="l1") for mask in MASKS},
    **{
        f"recurrent-{rule}-K{K}-{mask}": Design(m=2, rule=rule, tbptt=K, mask=mask, loss="l1")
        for mask, (rule, K) in product(MASKS, [("plain", 2), ("gated", None), (0.1, 1)])  # K itself: test_masks.py
    },
    **{f"first-frame-{mask}": Design(memory="first-frame", mask=mask, loss="l1") for mask in MASKS},
    **{f"last-frames-{mask}": Design(memory="last-frames", frames=3, mask=mask, loss="l1") for mask in MASKS},
    **{f"bank-{mask}": Design(memory="bank", mask=mask, bank=BANK) for mask in MASKS},
    **{f"bank-{name}-{value}": Design(memory="bank", bank=replace(BANK, **{name: value})) for name, value in BANKS},
}
REMEMBERS = [name for name in DESIGNS if not name.startswith(("memoryless", "uncarried", "bank-capacity-0"))]


class Wrapped(Policy):
    """A policy that does as another does."""

    def __init__(self, inner: Policy):
        super().__init__()
        self.inner, self.spec, self.chunk, self.replan = inner, inner.spec, inner.chunk, inner.replan

    def init(self, batch: int) -> Carry:
        return self.inner.init(batch)

    def observe(self, carry: Carry, obs: Observation, first_B: Tensor) -> Carry:
        return self.inner.observe(carry, obs, first_B)

    def act(self, carry: Carry) -> tuple[Chunk, Carry]:
        return self.inner.act(carry)

    def loss(self, carry: Carry, window: Window) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        return self.inner.loss(carry, window)


class OnSelf(Wrapped):
    """Mutant: remembers on the module what it observed. It forgets at `first`, so that one episode looks right."""

    def __init__(self, inner: Policy):
        super().__init__(inner)
        self.kept = inner.init(2 * B)

    @torch.no_grad()
    def observe(self, carry: Carry, obs: Observation, first_B: Tensor) -> Carry:
        rows = len(first_B)
        carry = super().observe({key: value[:rows] for key, value in self.kept.items()}, obs, first_B)
        self.kept = {key: torch.cat([carry[key], value[rows:]]) for key, value in self.kept.items()}
        return carry


class Leaky(Wrapped):
    """Mutant: what one row sees reaches the others."""

    def observe(self, carry: Carry, obs: Observation, first_B: Tensor) -> Carry:
        proprio = obs.proprio - 0.5 * obs.proprio.mean(0)
        return super().observe(carry, replace(obs, proprio=proprio), first_B)

    def loss(self, carry: Carry, window: Window) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        proprio = window.obs.proprio - 0.5 * window.obs.proprio.mean(0)
        return super().loss(carry, replace(window, obs=replace(window.obs, proprio=proprio)))


class Hasty(Wrapped):
    """Mutant: forgets to write memory where it does both in one pass."""

    def step(self, carry: Carry, obs: Observation, first_B: Tensor) -> tuple[Chunk, Carry]:
        return super().step(carry, obs, first_B)[0], carry


@torch.no_grad()
def stream(policy: Policy, window: Window, carry: Carry | None = None) -> tuple[Carry, Tensor]:
    """Play a window tick by tick: the lasting carry after it, and the plans (B,T,N,A)."""
    carry = policy.init(len(window.first)) if carry is None else carry

    def at(carry: Carry, t: int) -> tuple[Carry, Tensor]:
        plan, after = policy.act(policy.observe(carry, window.obs.at(t), window.first[:, t]))
        return carries.lasting(after), plan.actions

    return carries.scan(at, carry, window.ticks)


def plain_window(seed: int = 0) -> Window:
    """All rows begin at tick 0 and none again."""
    window = fakes.window(B, T, seed=seed)
    tick = torch.arange(T).expand(B, T)
    return replace(window, first=tick == 0, obs=replace(window.obs, tick=tick, capture_tick=tick))


def changed(window: Window, rows: slice, ticks: slice) -> Window:
    """The same window with other images and proprioception in some rows and ticks."""
    images, proprio = window.obs.images.clone(), window.obs.proprio.clone()
    images[rows, ticks] = 255 - images[rows, ticks]
    proprio[rows, ticks] += 1
    return replace(window, obs=replace(window.obs, images=images, proprio=proprio))


def near(a: Carry | Tensor, b: Carry | Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-5)


def differ(a: Tensor, b: Tensor) -> None:
    assert not torch.allclose(a, b, atol=1e-6, rtol=1e-5), "expected a difference"


def streaming_is_the_window(policy: Policy) -> None:
    window = fakes.window(B, T)
    carry, plans = stream(policy, window)
    loss, after, metrics = policy.loss(policy.init(B), replace(window, target=plans))
    near(after, carry)
    if isinstance(policy, MemoryVLA):
        near(policy.plans(policy.init(B), window), plans)  # the loss of a diffusion expert is of other noise
    else:
        assert loss < 1e-5  # the window's predictions are the plans
    assert not any(value.requires_grad for value in metrics.values())
    assert policy.loss(policy.init(B), window)[0] > 0.1


def split_is_whole(policy: Policy) -> None:
    window = fakes.window(B, T)
    whole, plans = stream(policy, window)
    start, rest = (fakes.part(window, range(B), ticks) for ticks in (slice(3), slice(3, T)))
    middle, before = stream(policy, start)
    stream(policy, plain_window(7))  # another episode in between is nobody's business
    end, after = stream(policy, rest, middle)
    near(end, whole)
    near(torch.cat([before, after], 1), plans)
    near(policy.loss(policy.loss(policy.init(B), start)[1], rest)[1], whole)


def first_forgets_one_row(policy: Policy) -> None:
    window = plain_window()
    first = window.first.clone()
    first[1, 3] = True
    _, plain = stream(policy, window)
    _, plans = stream(policy, replace(window, first=first))
    alone = fakes.part(window, [1], slice(3, T))
    _, fresh = stream(policy, replace(alone, first=alone.first | (torch.arange(T - 3) == 0)))
    near(plans[1, 3:], fresh[0])
    near(plans[[0, 2]], plain[[0, 2]])
    if carries.select(policy.init(1), "memory/"):
        differ(plain[1, 3:], fresh[0])


def rows_are_independent(policy: Policy) -> None:
    window = plain_window()
    other = changed(window, slice(2, 3), slice(T))
    (kept, a), (carry, b) = stream(policy, window), stream(policy, other)
    near(a[:2], b[:2])
    differ(a[2], b[2])
    trained = policy.loss(policy.init(B), other)[1]
    for key, value in kept.items():
        near(carry[key][:2], value[:2])
        near(trained[key][:2], value[:2])


def later_changes_nothing_earlier(policy: Policy) -> None:
    window = plain_window()
    (_, a), (_, b) = stream(policy, window), stream(policy, changed(window, slice(B), slice(4, T)))
    near(a[:, :4], b[:, :4])
    differ(a[:, 4:], b[:, 4:])


def carry_is_closed(policy: Policy) -> None:
    start, window = policy.init(B), plain_window()
    observed = policy.observe(start, window.obs.at(0), window.first[:, 0])
    _, acted = policy.act(observed)
    assert not any(key.startswith("now/") for key in start)
    for after in (carries.lasting(observed), carries.lasting(acted), policy.loss(start, window)[1]):
        assert {k: (v.shape, v.dtype) for k, v in after.items()} == {k: (v.shape, v.dtype) for k, v in start.items()}
    assert all(torch.equal(acted[key], value) for key, value in carries.lasting(observed).items())


@torch.no_grad()
def step_is_observe_and_act(policy: Policy) -> None:
    window = fakes.window(B, T)
    carry = expected = policy.init(B)
    for t in range(T):
        obs, first = window.obs.at(t), window.first[:, t]
        plan, expected = policy.act(policy.observe(expected, obs, first))
        chunk, carry = policy.step(carry, obs, first)
        near(chunk.actions, plan.actions)
        near(carries.lasting(carry), carries.lasting(expected))


@torch.no_grad()
def ticks_count_by_their_weight(policy: Policy) -> None:
    window = fakes.window(B, T)

    def loss(weight: Tensor, target: Tensor = window.target) -> Tensor:
        return policy.loss(policy.init(B), replace(window, weight=weight, target=target))[0]

    ones, some = torch.ones(B, T), torch.rand(B, T, generator=torch.Generator().manual_seed(1)).round()
    near(loss(ones), policy.loss(policy.init(B), window)[0])
    near(loss(some) + loss(ones - some), loss(ones))
    near(loss(3 * some), 3 * loss(some))
    near(loss(some, torch.where(some[..., None, None] > 0, window.target, 7.0)), loss(some))


@torch.no_grad()
def sessions_interleave(policy: Policy) -> None:
    window = plain_window()
    whole, expected = stream(policy, window)
    sessions = [policy.init(1) for _ in range(B)]
    done, plans = [0] * B, torch.empty_like(expected)
    for group in ([2], [0, 1], [2, 0], [1], [0, 1, 2], *[[2, 1, 0]] * T):
        group = [row for row in group if done[row] < T]
        if not group:
            continue
        now = [fakes.part(window, [row], slice(done[row], done[row] + 1)) for row in group]
        obs = joined([one.obs.at(0) for one in now])
        carry = carries.stack([sessions[row] for row in group])
        plan, carry = policy.act(policy.observe(carry, obs, obs.tick == 0))
        for i, (row, own) in enumerate(zip(group, carries.unstack(carry), strict=True)):
            sessions[row], plans[row, done[row]] = carries.lasting(own), plan.actions[i]
            done[row] += 1
    near(carries.stack(sessions), whole)
    near(plans, expected)


def joined(parts: list[Observation]) -> Observation:
    """Single-row observations as one batch."""
    tensors = {k: torch.cat([getattr(p, k) for p in parts]) for k, v in vars(parts[0]).items() if torch.is_tensor(v)}
    return Observation(instruction=tuple(text for p in parts for text in p.instruction), **tensors)


CONTRACT = [
    streaming_is_the_window,
    split_is_whole,
    first_forgets_one_row,
    rows_are_independent,
    later_changes_nothing_earlier,
    carry_is_closed,
    step_is_observe_and_act,
    ticks_count_by_their_weight,
    sessions_interleave,
]


def made(name: str) -> Policy:
    """A policy with something to say: what begins silent (zeros) speaks."""
    policy = fakes.policy(DESIGNS[name]).eval()
    if isinstance(policy, MemoryVLA):
        for weight in policy.parameters():
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.05)
    return policy


@pytest.mark.parametrize("require", CONTRACT, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", DESIGNS)
def test_contract(name, require):
    require(made(name))


def caught(mutant: Callable[[Policy], Policy], name: str) -> set[str]:
    """The properties that a mutant does not have."""
    failed = set()
    for require in CONTRACT:
        try:
            require(mutant(made(name)))
        except AssertionError:
            failed.add(require.__name__)
    return failed


GATED = "recurrent-gated-KNone-insulated"


def test_an_honest_wrapper_passes():
    assert caught(Wrapped, GATED) == set()


def test_the_contract_catches_state_on_the_module():
    # three of nine: it forgets at `first`, so only a carry that leaves and comes back gives it away
    assert caught(OnSelf, GATED) == {"split_is_whole", "step_is_observe_and_act", "sessions_interleave"}


def test_the_contract_catches_a_leak_across_rows():
    # three of nine: the others have the same rows on both sides
    assert caught(Leaky, GATED) == {"first_forgets_one_row", "rows_are_independent", "sessions_interleave"}


def test_the_contract_catches_a_step_that_is_not_observe_and_act():
    assert caught(Hasty, GATED) == {"step_is_observe_and_act"}


@pytest.mark.parametrize("name", DESIGNS)
def test_an_episode_leaves_the_policy_as_it_was(name):
    policy = made(name)
    before, weights = pickle.dumps(policy), {key: value.clone() for key, value in policy.state_dict().items()}
    stream(policy, fakes.window(B, T))
    policy.loss(policy.init(B), fakes.window(B, T))
    assert policy.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in policy.state_dict().items())
    assert pickle.dumps(policy) == before  # attributes that no state_dict shows


def test_pickled_bytes_see_state_that_no_state_dict_shows():
    policy = OnSelf(made(GATED))
    before = pickle.dumps(policy)
    stream(policy, fakes.window(B, T))
    assert pickle.dumps(policy) != before


@pytest.mark.parametrize("name", REMEMBERS)
def test_what_was_seen_at_the_first_tick_reaches_later_plans(name):
    policy, window = made(name), plain_window()
    late = 2 if name.startswith("last-frames") else T - 1  # the last frames are the present one and two before
    (_, a), (_, b) = stream(policy, window), stream(policy, changed(window, slice(B), slice(1)))
    differ(a[:, late], b[:, late])


@pytest.mark.parametrize("name", [name for name in DESIGNS if name not in REMEMBERS])
def test_a_memoryless_policy_plans_from_the_present_alone(name):
    policy, window = made(name), plain_window()
    (carry, a), (_, b) = stream(policy, window), stream(policy, changed(window, slice(B), slice(T - 1)))
    assert carries.select(carry, "memory/") == {}
    near(a[:, T - 1], b[:, T - 1])


def test_last_frames_forgets_what_is_older():
    policy, window = made("last-frames-insulated"), plain_window()
    (_, a), (_, b) = stream(policy, window), stream(policy, changed(window, slice(B), slice(3)))
    near(a[:, 5], b[:, 5])
    differ(a[:, 4], b[:, 4])


@pytest.mark.parametrize("name", DESIGNS)
def test_text_without_words_still_gives_a_plan(name):
    for third in ("wait", "!"):  # beside a neighbour with words, and without
        window = fakes.window(B, 1)
        window = replace(window, obs=replace(window.obs, instruction=("", "抓住红色方块", third)))
        _, plans = stream(made(name), window)
        assert torch.isfinite(plans).all()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"tbptt": 0}, "K .*at least 1 tick.*found 0"),
        ({"m": -1}, "m: expected 0 or more .* found -1"),
        ({"replan": 5}, "replan: expected 1 to 4 .* found 5"),
        ({"replan": 0, "memory": "first-frame"}, "replan: expected 1 to 4 .* found 0"),
        ({"chunk": 0}, "chunk: expected at least 1 .* found 0"),
        ({"rule": "medium"}, "rule: expected .* found 'medium'"),
        ({"rule": 1.5}, "rule: expected .* found 1.5"),
        ({"initial_std": float("nan")}, "initial_std: expected a finite number, 0 or more, found nan"),
        ({"initial_std": -1.0}, "initial_std: expected a finite number, 0 or more, found -1.0"),
        ({"read_scale": 0.0}, "read_scale: expected a finite number above 0, found 0.0"),
        ({"memory": "last-frames", "frames": 1}, "frames: expected at least 2.* found 1"),
    ],
)
def test_an_impossible_design_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        fakes.policy(Design(**bad))


def test_a_choice_that_does_not_exist_is_refused_with_those_that_do():
    # In a process of its own: here the type checks of the tests would be first.
    code = """
from engram.policies.build import Design
for name in ("memory", "mask", "trained", "loss", "size"):
    try:
        Design(**{name: "elephant"})
    except ValueError as error:
        print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [
        "memory: expected one of recurrent, first-frame, last-frames, bank, found 'elephant'; choose such a value",
        "mask: expected one of full, insulated, found 'elephant'; choose such a value",
        "trained: expected one of slots, language, all, found 'elephant'; choose such a value",
        "loss: expected one of huber, l1, l2, found 'elephant'; choose such a value",
        "size: expected one of s, m, l, found 'elephant'; choose such a value",
    ]


@pytest.mark.parametrize("mask", ["full", "insulated"])
def test_calibration_takes_the_hidden_states_of_all_ticks_but_padding(mask):
    long, short = fakes.window(), fakes.window(seed=1)
    padded = replace(short, valid=short.valid & (torch.arange(short.ticks) < 4))
    policy = fakes.policy(Design(m=2, mask=mask))
    policy.calibrate([long, fakes.part(short, range(3), slice(0, 4))])
    other = fakes.policy(Design(m=2, mask=mask))
    other.calibrate([long, padded])
    for name, value in policy.memory.standard.state_dict().items():
        torch.testing.assert_close(other.memory.standard.state_dict()[name], value)
    assert policy.memory.standard.centre.abs().max() > 0.1
    assert not any(parameter.grad is not None for parameter in policy.parameters())


def test_calibration_without_a_memory_is_refused():
    with pytest.raises(ValueError, match=r"expected a policy with a memory, found none \(m=0\)"):
        fakes.policy(Design(m=0)).calibrate([fakes.window()])
