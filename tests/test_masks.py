"""muVLA's memory-action guard and its gradients: the split passes against one plain pass under a dense mask.

Legend: B rows, T ticks, K ticks that a gradient may cross, N tokens, D width.
"""

from dataclasses import replace
from itertools import product

import fakes
import pytest
import torch
from torch import Tensor

from engram import carry as carries
from engram.backbones import streams
from engram.carry import Carry
from engram.policies.base import counted
from engram.policies.build import Design
from engram.policies.through import Through
from engram.types import Window

B, T = 3, 6
MASKS = ("full", "insulated")
RECURRENT = [
    Design(m=2, rule=rule, mask=mask, trained=trained)
    for mask, (rule, trained) in product(MASKS, [("plain", "all"), ("gated", "slots"), (0.1, "language")])
]
MEMORYLESS = [Design(m=0, mask=mask, trained="all") for mask in MASKS]


def name(design: Design) -> str:
    return f"m{design.m}-{design.rule}-{design.mask}-{design.trained}"


every_recurrent = pytest.mark.parametrize("design", RECURRENT, ids=name)
every_design = pytest.mark.parametrize("design", RECURRENT + MEMORYLESS, ids=name)

SCENE, TEXT, MEMORY, ACTION = range(4)


def may_see(types_N: Tensor, word_BN: Tensor, mask: str) -> Tensor:
    """The dense mask (B, query, key), from the type of every token: no position and no length enters."""
    query, key = types_N[:, None], types_N[None, :]
    context = key != ACTION
    if mask == "insulated":
        context = (query == key) & (key != ACTION) | (query == MEMORY) & context
    return ((query == ACTION) | context) & word_BN[:, None, :]


def reference_tick(policy: Through, carry: Carry, window: Window, t: int) -> tuple[Carry, Tensor]:
    """One pass over [scene | text | memory | action] at tick t: the carry after it and normalised actions (B,N,A)."""
    backbone, expert = policy.trunk.backbone, policy.head.expert
    obs, rows = window.obs.at(t), len(window.first)
    carry = carries.where(window.first[:, t], policy.init(rows), carry)
    scene = backbone.embed(backbone.see(obs.images), obs.proprio)
    text, word_BS = backbone.text(obs.instruction)
    memory = scene[:, :0] if policy.memory is None else policy.memory.read(carry, scene, obs.tick)[0] + policy.place
    parts = [scene, text, memory, expert.slots.expand(rows, -1, -1)]
    types_N = torch.cat([torch.full((part.shape[1],), kind) for kind, part in enumerate(parts)])
    ok_BN = torch.ones(rows, len(types_N), dtype=torch.bool)
    ok_BN[:, types_N == TEXT] = word_BS
    seen_BNN = may_see(types_N, ok_BN, policy.trunk.mask)
    hidden = streams.masked(backbone.context, backbone.slots, torch.cat(parts, 1), types_N <= TEXT, seen_BNN)
    if policy.memory is not None:
        kept, use_B = carries.select(carry, "memory/"), window.valid[:, t]
        carry = counted(carry, policy.memory.write(kept, hidden[:, types_N == MEMORY], obs.tick, use_B), use_B)
    return carry, expert(hidden[:, types_N == ACTION])


def reference(policy: Through, window: Window) -> tuple[Tensor, Carry, Tensor]:
    """Loss, carry after the window and actions (B,T,N,A), gradients through the whole window."""
    rows = len(window.first)
    carry, actions = carries.scan(lambda c, t: reference_tick(policy, c, window, t), policy.init(rows), window.ticks)
    use_BTN = window.target_ok & window.valid.unsqueeze(-1)
    error = torch.nn.functional.smooth_l1_loss(actions, window.target, reduction="none", beta=0.5).mean(-1)
    return (error * use_BTN).sum() / use_BTN.sum(), carry, actions


def gradients(policy: Through, loss: Tensor) -> dict[str, Tensor]:
    """By name; zeros where none arrives."""
    named = {key: value for key, value in policy.named_parameters() if value.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(named, found, strict=True))


def near(a, b, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-4)


def ragged() -> Window:
    """Texts of different lengths, an episode that begins in the middle, padding at an end, a chunk past an end."""
    window = fakes.window(B, T)
    valid, target_ok = window.valid.clone(), window.target_ok.clone()
    valid[2, 4:] = False
    target_ok[0, T - 2 :, 2:] = False
    return replace(window, valid=valid, target_ok=target_ok)


@every_design
def test_the_split_is_the_plain_pass(design):
    policy, window = fakes.policy(design), ragged()
    expected_loss, expected_carry, actions = reference(policy, window)
    loss, carry, _ = policy.loss(policy.init(B), window)
    near(loss, expected_loss)
    near(carry, expected_carry)
    near(gradients(policy, loss), gradients(policy, expected_loss))
    zero = policy.loss(policy.init(B), replace(window, target=actions.detach()))[0]
    assert zero < 1e-8  # the actions themselves, wherever they count


@every_design
def test_deployment_is_the_plain_pass(design):
    policy, window = fakes.policy(design).eval(), fakes.window(B, T)
    carry, expected = policy.init(B), policy.init(B)
    for t in range(T):
        plan, carry = policy.act(policy.observe(carry, window.obs.at(t), window.first[:, t]))
        expected, actions = reference_tick(policy, expected, window, t)
        near(plan.actions, policy.head.action.inverse(actions))
        near(carries.lasting(carry), expected)


@torch.no_grad()
def deployed(policy: Through, window: Window) -> tuple[Tensor, Carry]:
    """Play a window by `step`, which plans at every tick: the plans (B,T,N,A), and the carry after it."""
    carry, plans = policy.init(B), []
    for t in range(T):
        plan, carry = policy.step(carry, window.obs.at(t), window.first[:, t])
        plans.append(plan.actions)
    return torch.stack(plans, 1), carry


@every_recurrent
def test_action_slots_leave_memory_bit_identical(design):
    policy, window = fakes.policy(design).eval(), fakes.window(B, T)
    before = policy.loss(policy.init(B), window)[:2], deployed(policy, window)
    plain = reference(policy, window)[1]
    with torch.no_grad():
        policy.head.expert.slots.mul_(-50).add_(3)
    after = policy.loss(policy.init(B), window)[:2], deployed(policy, window)
    for (result, carry), (other, same) in zip(before, after, strict=True):
        assert all(torch.equal(same[key], value) for key, value in carry.items())
        assert not torch.equal(result, other)
    near(reference(policy, window)[1], plain, atol=1e-6)


def test_without_the_guard_action_slots_would_reach_memory(monkeypatch):
    """The test above has teeth: under a mask without the guard the plain pass does differ."""
    policy, window = fakes.policy(RECURRENT[0]).eval(), fakes.window(B, T)
    monkeypatch.setattr(f"{__name__}.may_see", lambda types, word, mask: word[:, None, :].expand(-1, len(types), -1))
    plain = reference(policy, window)[1]
    with torch.no_grad():
        policy.head.expert.slots.mul_(-50).add_(3)
    other = reference(policy, window)[1]
    memory = carries.select(plain, "memory/")
    assert memory
    assert not any(torch.allclose(other[key], value, atol=1e-3) for key, value in memory.items())


@every_design
def test_a_batch_of_mixed_texts_is_its_rows_alone(design):
    policy, window = fakes.policy(design), ragged()
    assert len({len(text.split()) for text in window.obs.instruction}) == B
    whole, carry, _ = policy.loss(policy.init(B), window)
    losses = []
    for row in range(B):
        alone = fakes.part(window, [row])
        loss, own, _ = policy.loss(policy.init(1), alone)
        near(own, {key: value[row : row + 1] for key, value in carry.items()})
        losses.append(loss * (alone.target_ok & alone.valid.unsqueeze(-1)).sum())
    counted = (window.target_ok & window.valid.unsqueeze(-1)).sum()
    near(torch.stack(losses).sum() / counted, whole)


@pytest.mark.parametrize("mask", MASKS)
def test_without_memory_tokens_it_is_the_plain_policy(mask):
    plain, muvla = (fakes.policy(Design(m=m, mask=mask)) for m in (0, 2))
    extra = {key for key, _ in muvla.named_parameters()} - {key for key, _ in plain.named_parameters()}
    assert extra == {"place", "memory.initial", "memory.gate.weight", "memory.gate.bias"}
    assert plain.init(B) == {} == plain.loss({}, fakes.window(B, T))[1]


def loss_at(policy: Through, window: Window, tick: int, proprio: Tensor) -> Tensor:
    """The loss of one tick alone, with `proprio` (B,T,P) seen."""
    only = window.target_ok & (torch.arange(T) == tick).view(1, T, 1)
    seen = replace(window.obs, proprio=proprio)
    return policy.loss(policy.init(B), replace(window, obs=seen, target_ok=only))[0]


def reach(design: Design, tick: int, first: tuple[int, ...] = (0,)) -> tuple[list[int], Tensor]:
    """Ticks whose observation has a gradient from the loss at `tick`, and the gradient of the initial memory."""
    window = fakes.window(B, T)
    window = replace(window, first=torch.isin(torch.arange(T), torch.tensor(first)).expand(B, T))
    policy, proprio = fakes.policy(design), window.obs.proprio.clone().requires_grad_()
    loss = loss_at(policy, window, tick, proprio)
    seen, initial = torch.autograd.grad(
        loss, [proprio, policy.memory.initial], allow_unused=True, materialize_grads=True
    )
    return [t for t in range(T) if seen[:, t].any()], initial


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("rule", ["plain", "gated"])
@pytest.mark.parametrize(("K", "begins"), [(1, 5), (2, 4), (3, 3), (4, 4), (6, 0), (None, 0)])
def test_a_gradient_reaches_back_to_its_boundary_and_stops(mask, rule, K, begins):
    """Boundaries lie before ticks 0, K, 2K, ...; the loss of the last tick reaches back to the last of them."""
    ticks, initial = reach(Design(m=2, rule=rule, mask=mask, tbptt=K), T - 1)
    assert ticks == list(range(begins, T))
    assert initial.any() == (begins == 0)  # the episode begins at tick 0, and the initial memory with it


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("K", [1, 2, None])
def test_an_episode_cuts_the_gradient_and_trains_the_initial_memory(mask, K):
    ticks, initial = reach(Design(m=2, mask=mask, tbptt=K), T - 1, first=(0, 5))
    assert ticks == [5]
    assert initial.any()


@pytest.mark.parametrize("mask", MASKS)
def test_an_ema_has_no_gradient_across_ticks(mask):
    for tick in (0, 3):
        ticks, initial = reach(Design(m=2, rule=0.1, mask=mask), tick)
        assert ticks == [tick]
        assert initial.any() == (tick == 0)  # attention within the first tick of an episode, nothing later


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("rule", "K"), [("plain", 1), ("plain", 2), ("gated", 3)])
def test_one_long_window_is_its_short_ones_accumulated(mask, rule, K):
    policy, window = fakes.policy(Design(m=2, rule=rule, mask=mask, tbptt=K)), fakes.window(B, T)
    whole, carry, _ = policy.loss(policy.init(B), window)
    losses, now = [], policy.init(B)
    for start in range(0, T, K):
        loss, now, _ = policy.loss(carries.detach(now), fakes.part(window, range(B), slice(start, start + K)))
        losses.append(loss)
    mean = torch.stack(losses).mean()
    near(mean, whole)
    near(now, carry)
    near(gradients(policy, mean), gradients(policy, whole), atol=1e-6)


@pytest.mark.parametrize("K", [1, 2, 3, None])
def test_k_changes_no_value(K):
    window = fakes.window(B, T)
    (loss, carry, _), (expected, after, _) = (
        policy.loss(policy.init(B), window) for policy in (fakes.policy(Design(tbptt=k)) for k in (K, None))
    )
    assert torch.equal(loss, expected)
    assert all(torch.equal(carry[key], after[key]) for key in after)


OTHERS = [
    Design(memory=memory, mask=mask, trained=trained)
    for mask, (memory, trained) in product(MASKS, [("first-frame", "slots"), ("last-frames", "language")])
]
every_policy = pytest.mark.parametrize("design", RECURRENT + MEMORYLESS + OTHERS, ids=lambda d: f"{d.memory}-{name(d)}")


@every_policy
def test_padding_leaves_no_trace(design):
    """Ticks that are not valid and targets past an episode's end: neither loss, gradient nor memory looks at them."""
    policy, window = fakes.policy(design), ragged()
    pad = ~window.valid
    images, proprio, target = window.obs.images.clone(), window.obs.proprio.clone(), window.target.clone()
    images[pad], proprio[pad], target[pad], target[~window.target_ok] = 7, 5.0, -9.0, 100.0
    other = replace(window, obs=replace(window.obs, images=images, proprio=proprio), target=target)
    (loss, carry, _), (same, after, _) = (policy.loss(policy.init(B), w) for w in (window, other))
    near(same, loss, atol=1e-6)
    near(after, carry, atol=1e-6)
    near(gradients(policy, same), gradients(policy, loss), atol=1e-6)
    short = policy.loss(policy.init(1), fakes.part(window, [2], slice(4)))[1]
    near(short, {key: value[2:] for key, value in carry.items()})


@every_policy
def test_a_window_of_padding_alone_has_no_loss(design):
    policy, window = fakes.policy(design), fakes.window(B, T)
    start = carries.detach(policy.init(B))
    window = replace(window, valid=torch.zeros_like(window.valid), first=torch.zeros_like(window.first))
    loss, carry, _ = policy.loss(start, window)
    assert loss == 0
    near(carry, start, atol=0.0)
    assert not any(value.any() for value in gradients(policy, loss).values())


@every_policy
def test_kept_features_are_as_good_as_images(design):
    policy, window = fakes.policy(design), ragged()
    with torch.no_grad():
        features = policy.trunk.features(window.obs.flat()).unflatten(0, (B, T))
    blank = torch.zeros(1, dtype=torch.uint8).expand(window.obs.images.shape)
    kept = replace(window, obs=replace(window.obs, images=blank), features=features)
    (loss, carry, _), (same, after, _) = (policy.loss(policy.init(B), w) for w in (window, kept))
    near(same, loss, atol=1e-6)
    near(after, carry, atol=1e-6)
    if policy.trunk.frozen_features:
        near(gradients(policy, same), gradients(policy, loss), atol=1e-6)


@pytest.mark.parametrize(
    ("trained", "frozen"),
    [
        ("all", ()),
        ("language", ("vision",)),
        ("slots", ("vision", "context", "place", "word_place", "proprio", "words")),
    ],
)
def test_what_is_frozen_stays_frozen(trained, frozen):
    policy = fakes.policy(Design(m=2, trained=trained))
    loss = policy.loss(policy.init(B), fakes.window(B, T))[0]
    heads = tuple(f"trunk.backbone.{part}" for part in frozen)
    for key, parameter in policy.named_parameters():
        inside = any(key == head or key.startswith(head + ".") for head in heads)
        assert parameter.requires_grad != inside, key
    # `question` belongs to pretraining; after its last layer the context is not read
    silent = {key for key, value in gradients(policy, loss).items() if not value.any()}
    assert not {key for key in silent if key.startswith(("memory", "head", "place", "trunk.backbone.slots"))}
