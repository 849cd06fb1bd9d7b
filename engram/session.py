"""One episode of one robot, as a value; and the one function that moves many of them a tick onward together.

A session is a carry row, the chunk being played and a few counters. Nothing of it lives on the policy and a step
returns new sessions, so that keeping a session is a snapshot, stepping it twice is a fork, and any group of sessions
of one policy may share a forward pass. Evaluation (`engram.rollout`) uses this `step`, and so will the server.

Legend: B sessions, A action, N chunk length, M memory tokens, D width.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from engram.carry import Carry, lasting, select, stack, unstack
from engram.policies.base import SEED, WRITES, Policy
from engram.types import Observation, Spec


class State(enum.Enum):
    """Where a session stands: FRESH until its first observation, RUNNING after it, CLOSED for good."""

    FRESH = "fresh"
    RUNNING = "running"
    CLOSED = "closed"


@dataclass(frozen=True)
class Counters:
    """What a session did: observations perceived, plans made, writes of memory, ticks at which memory moved."""

    observations: int = 0
    plans: int = 0
    writes: int = 0
    moves: int = 0


@dataclass(frozen=True)
class Session:
    """One episode between two control ticks. Everything here, and nothing else, is what a snapshot must hold.

    carry     one row of the policy's carry, lasting keys only
    action    float32 (A,)    the action executed before the next observation (zeros at the first)
    chunk     float32 (N, A)  the plan being played, None before the first; with `policy.ensemble` a weighted mean of
              the plans for each tick
    weight    float32 (N,)    summed weight of the plans in each action of the chunk, the newest one's being 1
    cursor    actions of the chunk that were played
    tick      control tick of the next observation
    drift     mean of 1 - cos over memory tokens between the last two ticks; None before the first tick and for a
              policy without memory (muVLA, arXiv 2606.12497: drift)
    """

    carry: Carry
    action: Float[Tensor, "A"]
    chunk: Float[Tensor, "N A"] | None = None
    weight: Float[Tensor, "N"] | None = None
    cursor: int = 0
    tick: int = 0
    state: State = State.FRESH
    counters: Counters = field(default_factory=Counters)
    drift: float | None = None

    def close(self) -> "Session":
        """The session after its end: it can be read, never stepped."""
        self.require_open("close")
        return replace(self, state=State.CLOSED)

    def require_open(self, verb: str) -> None:
        """Raise ValueError when the session is closed."""
        if self.state is State.CLOSED:
            raise ValueError(
                f"cannot {verb} a session: expected it fresh or running, found it closed at tick {self.tick}; "
                "open a new session for a new episode"
            )


@torch.inference_mode()
def start(policy: Policy, seed: int = 0) -> Session:
    """A fresh session of `policy`, on the policy's device; its memory is its own, not the learned one of the policy.

    `seed` decides what a policy draws that draws (a diffusion expert): the same seed, the same episode.
    """
    carry = {key: value.clone() for key, value in policy.init(1).items()}
    if SEED in carry:
        carry[SEED].fill_(seed)
    return Session(carry, torch.zeros(policy.spec.action_dim))


def observation_from(
    spec: Spec, sessions: Sequence[Session], frames: Sequence[Mapping[str, np.ndarray]], instructions: Sequence[str]
) -> Observation:
    """What B sessions see at their present tick, from what their cameras and joints gave, on the CPU.

    frames[b] maps every camera of `spec` to uint8 (H, W, 3) and "proprio" to float32 (P,); other keys are not looked
    at. Tick and previous action are the session's own; images are taken at the tick at which they are seen. Raises
    ValueError naming the first key that is missing or has another shape or dtype.
    """
    for frame, instruction in zip(frames, instructions, strict=True):
        _require_frame(spec, frame, instruction)
    images = np.stack([np.stack([frame[camera] for camera in spec.cameras]) for frame in frames])
    tick = torch.tensor([session.tick for session in sessions])
    return Observation(
        images=torch.from_numpy(images),
        proprio=torch.from_numpy(np.stack([frame["proprio"] for frame in frames])),
        instruction=tuple(instructions),
        tick=tick,
        capture_tick=tick,
        action=torch.stack([session.action for session in sessions]),
    )


@torch.inference_mode()
def step(
    policy: Policy, sessions: Sequence[Session], obs: Observation
) -> tuple[Float[Tensor, "B A"], tuple[Session, ...]]:
    """One control tick of B sessions: perceive, plan where the chunk is used up, play one action each.

    Row b of `obs` belongs to `sessions[b]`. The policy observes every session at every tick and acts only for the rows
    that have no plan or have played `policy.replan` actions of it. `obs` may be on any device. Returns the
    actions, float32 (B, A) on the CPU in the environment's units, and the sessions after this tick; the ones passed
    in stay as they were.

    Raises ValueError for a closed session, an observation of another tick than the session's, or a plan that is not
    finite.
    """
    _require_in_step(sessions, obs)
    device = policy.device
    before = stack([session.carry for session in sessions])
    first_B = torch.tensor([session.state is State.FRESH for session in sessions], device=device)
    due = [b for b, session in enumerate(sessions) if session.chunk is None or session.cursor >= policy.replan]
    plans, after = _observe_and_plan(policy, before, obs.to(device), first_B, due)
    moved, turned = _moved(before, after, len(sessions)), _listed(drift(before, after), len(sessions))
    rows = unstack(after) or [{} for _ in sessions]
    played = [_planned(session, plans.get(b), policy.ensemble) for b, session in enumerate(sessions)]
    stepped = tuple(_advance(session, rows[b], moved[b], turned[b]) for b, session in enumerate(played))
    return torch.stack([session.action for session in stepped]), stepped


def drift(before: Carry, after: Carry) -> Float[Tensor, "B"] | None:
    """How far memory turned: per row, the mean of 1 - cos over its tokens; None without memory tokens.

    Tokens are the last axes of the floating-point `memory/` entries of shape (B, ..., D); a token that is bit-equal
    before and after has drift 0 (also the zero vector, whose angle is undefined).
    """
    keys = [key for key, value in select(after, "memory/").items() if value.is_floating_point() and value.ndim >= 3]
    if not keys:
        return None
    per_key = [_turned(before[key], after[key]) for key in keys]
    return torch.cat(per_key, 1).mean(1)


def _turned(before: Float[Tensor, "B *M D"], after: Float[Tensor, "B *M D"]) -> Float[Tensor, "B tokens"]:
    old, new = before.flatten(1, -2).float(), after.flatten(1, -2).float()
    turn = 1 - torch.cosine_similarity(old, new, dim=-1)
    return torch.where((old == new).all(-1), torch.zeros_like(turn), turn)


def _listed(drift_B: Float[Tensor, "B"] | None, batch: int) -> list[float | None]:
    return [None] * batch if drift_B is None else drift_B.tolist()


def _moved(before: Carry, after: Carry, batch: int) -> list[bool]:
    """Row by row: did any `memory/` entry change at all."""
    moved = torch.zeros(batch, dtype=torch.bool)
    for key, value in select(after, "memory/").items():
        moved |= (before[key] != value).reshape(batch, -1).any(1).cpu()
    return moved.tolist()


def _observe_and_plan(
    policy: Policy, before: Carry, obs: Observation, first_B: Tensor, due: list[int]
) -> tuple[dict[int, Tensor], Carry]:
    """Plans (N, A) of the rows in `due`, and the lasting carry of all rows after this tick."""
    if len(due) == len(first_B):
        chunk, after = policy.step(before, obs, first_B)
    else:
        after = policy.observe(before, obs, first_B)
        if not due:
            return {}, lasting(after)
        index = torch.tensor(due, device=first_B.device)
        chunk, acted = policy.act({key: value[index] for key, value in after.items()})
        after = {key: after[key].index_copy(0, index, value) for key, value in lasting(acted).items()}
    _require_finite(chunk.actions, due)
    return dict(zip(due, chunk.actions.float().cpu(), strict=True)), lasting(after)


def _planned(session: Session, plan: Tensor | None, ensemble: float) -> Session:
    """The session with a new plan, if there is one: a mean with what is left of older plans.

    Temporal ensembling as in arXiv 2304.13705, IV-A, but that the newest plan weighs most, there the oldest.
    """
    if plan is None:
        return session
    chunk, weight = plan.clone(), torch.ones(len(plan))
    if ensemble and session.chunk is not None and session.weight is not None:
        left, old = session.chunk[session.cursor :], ensemble * session.weight[session.cursor :]
        weight[: len(left)] += old
        chunk[: len(left)] += (old / weight[: len(left)])[:, None] * (left - chunk[: len(left)])
    counters = replace(session.counters, plans=session.counters.plans + 1)
    return replace(session, chunk=chunk, weight=weight, cursor=0, counters=counters)


def _advance(session: Session, row: Carry, moved: bool, drift: float | None) -> Session:
    """The session after this tick. The row is copied: a resting session must not keep its whole batch alive."""
    chunk, cursor, count = session.chunk, session.cursor, session.counters
    assert chunk is not None
    assert cursor < len(chunk), "policy.replan must not exceed policy.chunk"
    counters = replace(
        count,
        observations=count.observations + 1,
        writes=int(row[WRITES]) if WRITES in row else 0,
        moves=count.moves + moved,
    )
    row = {key: value.clone() for key, value in row.items()}
    return replace(
        session, carry=row, action=chunk[cursor], cursor=cursor + 1, tick=session.tick + 1, state=State.RUNNING,
        counters=counters, drift=drift,
    )  # fmt: skip


def _require_frame(spec: Spec, frame: Mapping[str, np.ndarray], instruction: str) -> None:
    image = ((spec.height, spec.width, 3), np.uint8)
    expected = {**dict.fromkeys(spec.cameras, image), "proprio": ((spec.proprio_dim,), np.float32)}
    for key, (shape, dtype) in expected.items():
        if key not in frame:
            raise ValueError(
                f"expected an observation with {sorted(expected)}, found {sorted(frame)} without {key!r}; "
                "use an environment with the cameras that the policy was trained on"
            )
        if frame[key].shape != shape or frame[key].dtype != dtype:
            raise ValueError(
                f"expected {key!r} as {np.dtype(dtype)} {shape}, found {frame[key].dtype} {frame[key].shape}; "
                "use an environment with the resolution and dtypes that the policy was trained on"
            )
    if not instruction:
        raise ValueError("expected an instruction, found an empty one; say what the robot is to do")


def _require_in_step(sessions: Sequence[Session], obs: Observation) -> None:
    for session in sessions:
        session.require_open("observe in")
    expected, found = [session.tick for session in sessions], obs.tick.tolist()
    if expected != found:
        raise ValueError(
            f"expected observations of control ticks {expected}, one per session, found {found}; "
            "show every session each of its ticks once and in order"
        )


def _require_finite(actions: Float[Tensor, "B N A"], due: list[int]) -> None:
    finite_B = actions.isfinite().flatten(1).all(1)
    if not finite_B.all():
        rows = [b for b, finite in zip(due, finite_B.tolist(), strict=True) if not finite]
        raise ValueError(
            f"expected finite actions, found NaN or infinity in the plan of rows {rows}; "
            "the checkpoint is damaged or its training diverged: evaluate an earlier one"
        )
