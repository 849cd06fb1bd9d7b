"""Sessions: one episode each as a value, many in one step."""

import fakes
import numpy as np
import pytest
import torch
from doubles import SPEC, BlindPolicy, CuePolicy
from game import RecallGame

from engram.carry import Carry
from engram.policies.design import BankDesign, Design
from engram.session import Session, State, drift, observation_from, start, step
from engram.types import Chunk, Observation


def frames_of(seed: int, ticks: int) -> list[dict]:
    """What the game shows in its first ticks, doing nothing."""
    env = RecallGame()
    frames = [env.reset(seed=seed)[0]]
    while len(frames) < ticks:
        frames.append(env.step(env.action_space.low * 0)[0])
    return frames


def advance(policy, sessions: list[Session], frames: list[dict]) -> tuple[torch.Tensor, list[Session]]:
    obs = observation_from(policy.spec, sessions, frames, ["touch it"] * len(frames))
    actions, sessions = step(policy, sessions, obs)
    return actions, list(sessions)


def played(policy, seed: int, ticks: int) -> Session:
    session = start(policy)
    for frame in frames_of(seed, ticks):
        _, (session,) = advance(policy, [session], [frame])
    return session


def same(a: Carry, b: Carry) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(("replan", "plans"), [(1, 6), (2, 3), (4, 2)])
def test_observes_every_tick_and_plans_when_the_chunk_is_played(replan, plans):
    counters = played(CuePolicy(replan), seed=0, ticks=6).counters
    assert (counters.observations, counters.writes, counters.plans) == (6, 6, plans)
    assert counters.moves == 3  # the cue is shown for three ticks


def test_a_seed_decides_what_a_policy_draws():
    policy = fakes.policy(Design(memory="bank", bank=BankDesign(capacity=2, steps=2)), spec=SPEC)
    frames = frames_of(0, 1)
    first, again, other = (advance(policy, [start(policy, seed)], frames)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


class Counting(BlindPolicy):
    """Its plan at tick t is t, 10 + t, 20 + t, 30 + t."""

    def act(self, carry):
        plan_BN1 = carry["expert/phase"][..., None] - 1 + torch.tensor([0.0, 10.0, 20.0, 30.0])[None, :, None]
        return Chunk(plan_BN1.expand(-1, -1, self.spec.action_dim).clone()), carry


@pytest.mark.parametrize(("replan", "ensemble"), [(1, 0.5), (2, 0.5), (3, 0.25), (1, 0.0), (4, 1.0)])
def test_what_is_played_is_the_weighted_mean_of_all_plans_that_reach_as_far(replan, ensemble):
    policy = Counting(replan)
    policy.ensemble = ensemble
    session = start(policy)
    for tick, frame in enumerate(frames_of(0, 9)):
        action_BA, (session,) = advance(policy, [session], [frame])
        made = [t for t in range(tick - tick % replan, -1, -replan) if tick - t < policy.chunk]
        weights = [ensemble**age for age in range(len(made))]
        expected = sum(w * (10 * (tick - t) + t) for w, t in zip(weights, made, strict=True)) / sum(weights)
        torch.testing.assert_close(action_BA, torch.full((1, policy.spec.action_dim), expected))


def test_a_policy_without_memory_writes_nothing_and_has_no_drift():
    session = played(BlindPolicy(), seed=0, ticks=6)
    assert (session.counters.writes, session.counters.moves, session.drift) == (0, 0, None)


def test_a_resting_session_holds_lasting_keys_only():
    policy = CuePolicy()
    assert played(policy, seed=0, ticks=4).carry.keys() == policy.init(1).keys()


def require_interleaving(policy) -> None:
    """Three sessions stepped in varying groups and orders end as each does alone."""
    shows = [frames_of(seed, 6) for seed in range(3)]
    sessions = [start(policy) for _ in shows]
    for turn in ([0, 2], [1], [2, 0, 1], [1, 0], [0, 1, 2], [1, 2], [2, 0], [0, 1, 2]):
        _, moved = advance(policy, [sessions[i] for i in turn], [shows[i][sessions[i].tick] for i in turn])
        for i, session in zip(turn, moved, strict=True):
            sessions[i] = session
    for seed, session in enumerate(sessions):
        alone = played(policy, seed, session.tick)
        assert same(session.carry, alone.carry)
        assert torch.equal(session.action, alone.action)
        assert session.counters == alone.counters


def test_interleaved_sessions_equal_each_alone():
    require_interleaving(CuePolicy(replan=3))


class Hoarder(CuePolicy):
    """A mutant: remembers on itself what it saw last."""

    def observe(self, carry: Carry, obs: Observation, first_B: torch.Tensor) -> Carry:
        carry = super().observe(carry, obs, first_B)
        self.last = carry["memory/colour"].mean(0) + getattr(self, "last", 0)
        return {**carry, "memory/colour": carry["memory/colour"] + self.last}


class Gossip(CuePolicy):
    """A mutant: rows of a batch tell one another."""

    def observe(self, carry: Carry, obs: Observation, first_B: torch.Tensor) -> Carry:
        carry = super().observe(carry, obs, first_B)
        return {**carry, "memory/colour": carry["memory/colour"] + carry["memory/colour"].mean(0)}


@pytest.mark.parametrize("mutant", [Hoarder, Gossip])
def test_interleaving_catches_state_on_the_policy_and_between_rows(mutant):
    with pytest.raises(AssertionError):
        require_interleaving(mutant())


DESIGNS = {
    "memoryless": Design(m=0, chunk=4, replan=2),
    "mu_vla": Design(chunk=4, replan=3, ensemble=0.5),
    "mu_vla full ema": Design(mask="full", rule=0.1, initial_std=0.02),
    "first frame": Design(memory="first-frame", replan=2, ensemble=0.6),
    "last frames": Design(memory="last-frames", frames=3),
}


def fake_frame(seed: int, tick: int) -> dict:
    """Noise of the shape that the fake policies expect."""
    rng = np.random.default_rng((seed, tick))
    images = rng.integers(0, 256, (2, fakes.SPEC.height, fakes.SPEC.width, 3), np.uint8)
    return {"base": images[0], "wrist": images[1], "proprio": rng.standard_normal(7, np.float32)}


@pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS.keys())
def test_sessions_of_every_policy_interleave_and_leave_it_bit_equal(design):
    policy = fakes.policy(design).eval()
    before = {key: value.clone() for key, value in policy.state_dict().items()}
    together = [start(policy) for _ in range(3)]
    for turn in ([0, 2], [1], [2, 0, 1], [1, 0], [0, 1, 2], [1, 2]):
        shown = [fake_frame(i, together[i].tick) for i in turn]
        for i, session in zip(turn, advance(policy, [together[i] for i in turn], shown)[1], strict=True):
            together[i] = session
    for seed, session in enumerate(together):
        alone = start(policy)
        for tick in range(session.tick):
            _, (alone,) = advance(policy, [alone], [fake_frame(seed, tick)])
        assert alone.carry.keys() == session.carry.keys()
        for key in alone.carry:
            torch.testing.assert_close(session.carry[key], alone.carry[key], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(session.action, alone.action, rtol=1e-4, atol=1e-5)
        assert session.counters == alone.counters
    assert same(before, policy.state_dict())


@pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS.keys())
def test_a_session_owns_its_memory(design):
    """Nothing of the policy can be changed through one, and none keeps the batch alive in which it was stepped."""
    policy = fakes.policy(design).eval()
    parts = {**dict(policy.named_parameters()), **dict(policy.named_buffers())}
    before = {key: value.clone() for key, value in parts.items()}
    fresh = [start(policy) for _ in range(3)]
    _, stepped = advance(policy, fresh, [fake_frame(seed, 0) for seed in range(3)])
    held = [value for session in (*fresh, *stepped) for value in session.carry.values()]
    for tensor in held + [session.chunk for session in stepped]:
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
        with torch.inference_mode():
            tensor.zero_()
    assert same(before, parts)


def test_a_kept_session_can_be_played_again():
    policy, frames = CuePolicy(replan=2), frames_of(0, 3)
    _, (kept,) = advance(policy, [start(policy)], frames[:1])
    _, (once,) = advance(policy, [kept], frames[1:2])
    advance(policy, [once], frames[2:3])
    _, (again,) = advance(policy, [kept], frames[1:2])
    assert same(once.carry, again.carry)
    assert kept.tick == 1
    assert once.counters == again.counters


def test_the_policy_is_bit_equal_after_an_episode():
    policy = CuePolicy()
    before = {key: value.clone() for key, value in policy.state_dict().items()}
    attributes = set(vars(policy))
    played(policy, seed=0, ticks=6)
    assert same(before, policy.state_dict())
    assert set(vars(policy)) == attributes


def test_the_previous_action_is_part_of_what_is_seen():
    policy = CuePolicy()
    actions, sessions = advance(policy, [start(policy)], frames_of(0, 1))
    obs = observation_from(SPEC, sessions, frames_of(0, 2)[1:], ["touch it"])
    assert torch.equal(obs.action, actions)
    assert obs.tick.tolist() == obs.capture_tick.tolist() == [1]


def test_a_closed_session_refuses_to_go_on():
    policy = CuePolicy()
    closed = start(policy).close()
    assert closed.state is State.CLOSED
    with pytest.raises(ValueError, match="cannot observe in a session: expected it fresh or running, found it closed"):
        advance(policy, [closed], frames_of(0, 1))
    with pytest.raises(ValueError, match="cannot close a session"):
        closed.close()


def test_an_observation_of_another_tick_is_refused():
    policy = CuePolicy()
    fresh = start(policy)
    obs = observation_from(SPEC, [fresh], frames_of(0, 1), ["touch it"])
    _, (later,) = step(policy, [fresh], obs)
    with pytest.raises(ValueError, match=r"control ticks \[1\], one per session, found \[0\]"):
        step(policy, [later], obs)


class NanPolicy(CuePolicy):
    """Diverged in training."""

    def act(self, carry: Carry) -> tuple[Chunk, Carry]:
        chunk, carry = super().act(carry)
        chunk.actions[1:, 2, 0] = float("nan")
        return chunk, carry


def test_nan_in_a_plan_is_refused_and_its_row_named():
    policy = NanPolicy()
    with pytest.raises(ValueError, match=r"found NaN or infinity in the plan of rows \[1\]"):
        advance(policy, [start(policy), start(policy)], frames_of(0, 1) + frames_of(1, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.pop("wrist"), r"found \['base', 'proprio'\] without 'wrist'"),
        (
            lambda frame: frame.update(base=frame["base"][:8]),
            r"'base' as uint8 \(12, 12, 3\), found uint8 \(8, 12, 3\)",
        ),
        (lambda frame: frame.update(base=frame["base"] / 255), "'base' as uint8 .* found float64"),
        (
            lambda frame: frame.update(proprio=frame["proprio"][:6]),
            r"'proprio' as float32 \(7,\), found float32 \(6,\)",
        ),
    ],
)
def test_a_wrong_camera_shape_or_dtype_is_named(change, message):
    frame = frames_of(0, 1)[0]
    change(frame)
    with pytest.raises(ValueError, match=message):
        observation_from(SPEC, [start(CuePolicy())], [frame], ["touch it"])


def test_an_empty_instruction_is_refused():
    with pytest.raises(ValueError, match="found an empty one"):
        observation_from(SPEC, [start(CuePolicy())], frames_of(0, 1), [""])


def test_drift_is_one_minus_the_cosine_meaned_over_tokens():
    right, up = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    before = {"memory/x": torch.stack([torch.stack([right, right]), torch.stack([right, 0 * right])])}
    after = {"memory/x": torch.stack([torch.stack([up, 3 * right]), torch.stack([-right, 0 * right])])}
    assert drift(before, after).tolist() == pytest.approx([0.5, 1.0])
    assert drift({"expert/x": right[None]}, {"expert/x": up[None]}) is None
