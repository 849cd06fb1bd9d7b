"""The loop: episodes of one policy in many lanes of one vector environment.

A control tick is one observation shown to the policy and one action taken from it. An episode of T ticks therefore
has T observations, as many writes as its policy asks for (`Policy.writes`: T where no rule says otherwise; none without
a memory), ceil(T / replan) plans, and T rendered frames that the policy saw; the frame after the last action is
rendered too, but shown to nobody and not counted.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.console import Console

from engram.carry import Carry, select
from engram.envs.vector import EnvError, VectorEnv
from engram.policies.base import Policy
from engram.rollout.interventions import At, Donor, Intervention, Moment
from engram.session import Session, observation_from, start, step

Record = dict[str, Any]  # one line of results; `_record` says what it holds
Info = dict[str, Any]
DEATHS = 2  # of its simulator's process that an episode survives: it is played again from its seed
console = Console(stderr=True)


@dataclass(frozen=True)
class Keep:
    """What is done with the memory that every episode has at a moment (None: its onset), before it is observed: called
    with the episode's seed and its `memory/` row."""

    memory: Callable[[int, Carry], None]
    at: At = None


class EpisodeError(RuntimeError):
    """Some episodes ended in an error of their environment: what was asked for is not complete."""


class CounterError(RuntimeError):
    """What the policy, the session and the environment counted disagrees: the run proves nothing."""


@dataclass(frozen=True)
class _Lane:
    """An episode being played: what the environment last gave, and what was gathered since its start."""

    seed: int
    session: Session
    frame: dict[str, np.ndarray]
    info: Info
    fresh: Carry
    held: Carry | None = None
    intervened: int = 0
    reward: float = 0.0
    drift: tuple[float, ...] = ()
    cue_ticks: int = 0


def play(
    policy: Policy,
    envs: VectorEnv,
    lanes: int,
    seeds: Sequence[int],
    intervention: Intervention | None = None,
    keep: Keep | None = None,
) -> Iterator[Record]:
    """Play one episode per seed in the `lanes` of `envs`, a free lane taking the next seed; yields records as they end.

    What happens in an episode depends on its seed alone (up to floating-point noise of batching), not on its lane. An
    environment that fails gives a record with `error` and no outcome; one whose process dies is started again, and so
    is its episode, up to `DEATHS` times. The policy is in evaluation mode meanwhile. Raises CounterError, and
    ValueError for an episode that is over before the intervention begins.
    """
    training = policy.training
    policy.eval()
    try:
        yield from _played(policy, envs, lanes, seeds, intervention, keep)
    finally:
        policy.train(training)


def _played(
    policy: Policy,
    envs: VectorEnv,
    lanes: int,
    seeds: Sequence[int],
    intervention: Intervention | None,
    keep: Keep | None,
) -> Iterator[Record]:
    waiting, suspects, playing = deque(seeds), deque[int](), dict[int, _Lane]()
    deaths, fatal = Counter[int](), Counter[int]()
    while waiting or suspects or playing:
        begun = _next(lanes, playing, waiting, suspects)
        seed_of = {lane: episode.seed for lane, episode in playing.items()} | begun
        try:
            if begun:
                playing |= {lane: _begin(policy, begun[lane], *out) for lane, out in envs.reset(begun).items()}
            playing = {lane: _intervene(episode, intervention, keep) for lane, episode in playing.items()}
            ticked = _tick(policy, envs, playing)
        except EnvError as error:
            hit = [seed_of[lane] for lane in error.gone if lane in seed_of]
            deaths.update(hit)
            fatal.update(hit if len(hit) == 1 else ())
            if hit and fatal[hit[0]] <= DEATHS:
                said = f"seed {', '.join(map(str, hit))}: {error.text}; started again, and so is the episode"
                console.print(said, highlight=False, soft_wrap=True)
                suspects.extend(seed for seed in hit if seed not in suspects and len(hit) > 1)
            else:
                seed = seed_of.pop(error.lane)
                yield _failed(seed, str(error)) | {"deaths": deaths[seed]}
                suspects = deque(other for other in suspects if other != seed)
            # The lanes stepped beside it are at an unknown tick. A seed decides all of an episode: play them again.
            waiting.extendleft(sorted((seed for seed in seed_of.values() if seed not in suspects), reverse=True))
            playing = {}
            continue
        for lane, (episode, over) in ticked.items():
            playing[lane] = episode
            if over:
                suspects = deque(seed for seed in suspects if seed != episode.seed)
                yield _record(policy, playing.pop(lane), intervention) | {"deaths": deaths[episode.seed]}


def _next(lanes: int, playing: dict[int, _Lane], waiting: deque[int], suspects: deque[int]) -> dict[int, int]:
    """The seeds to start now, by lane. Of several that a process died with each is played alone: which was it?"""
    if suspects:
        return {} if playing else {0: suspects[0]}
    free = [lane for lane in range(lanes) if lane not in playing]
    return {lane: waiting.popleft() for lane in free[: len(waiting)]}


def _begin(policy: Policy, seed: int, frame: dict[str, np.ndarray], info: Info) -> _Lane:
    session = start(policy, seed)
    return _Lane(seed, session, frame, info, fresh=select(session.carry, "memory/"))


def _tick(policy: Policy, envs: VectorEnv, lanes: dict[int, _Lane]) -> dict[int, tuple[_Lane, bool]]:
    """Every lane one control tick further, and whether its episode is over."""
    episodes = list(lanes.values())
    sessions = [episode.session for episode in episodes]
    texts = [str(episode.info["instruction"]) for episode in episodes]
    obs = observation_from(policy.spec, sessions, [episode.frame for episode in episodes], texts)
    actions, stepped = step(policy, sessions, obs)
    moved = envs.step({lane: action.numpy() for lane, action in zip(lanes, actions, strict=True)})
    return {lane: _after(lanes[lane], session, *moved[lane]) for lane, session in zip(lanes, stepped, strict=True)}


def _after(
    episode: _Lane,
    session: Session,
    frame: dict[str, np.ndarray],
    reward: float,
    terminated: bool,
    truncated: bool,
    info: Info,
) -> tuple[_Lane, bool]:
    drift = episode.drift if session.drift is None else (*episode.drift, round(session.drift, 6))
    after = replace(
        episode,
        session=session,
        frame=frame,
        info=info,
        reward=episode.reward + float(reward),
        drift=drift,
        cue_ticks=episode.cue_ticks + (episode.info["phase"] == "cue"),
    )
    return after, terminated or truncated


def _intervene(episode: _Lane, intervention: Intervention | None, keep: Keep | None) -> _Lane:
    """The episode before `observe` of its present tick, its memory changed where the intervention says so."""
    memory, tick = select(episode.session.carry, "memory/"), episode.session.tick
    if keep is not None and tick == _tick_meant(episode, keep.at):
        keep.memory(episode.seed, memory)
    if intervention is None:
        return episode
    at = _tick_meant(episode, intervention.at)
    if tick < at:
        return episode
    intervention.require_something(at)
    held = memory if episode.held is None else episode.held
    donor = _donor(episode, intervention)
    changed = intervention.change(memory, Moment(episode.seed, tick, at, episode.fresh, held, donor))
    session = replace(episode.session, carry={**episode.session.carry, **changed})
    return replace(episode, session=session, held=held, intervened=episode.intervened + 1)


def _tick_meant(episode: _Lane, at: At) -> int:
    """The tick that is meant. Where the cue ends is known from then on: until then it is said to be ahead."""
    if at == "cue":
        return episode.session.tick + 1 if _before_cue_ends(episode) else episode.cue_ticks
    return int(episode.info["onset"]) if at is None else at


def _before_cue_ends(episode: _Lane) -> bool:
    return episode.info["phase"] == "cue" or episode.cue_ticks == 0


def _donor(episode: _Lane, intervention: Intervention | None) -> Donor | None:
    if intervention is None or intervention.donors is None:
        return None
    return intervention.donors[episode.seed]


def _record(policy: Policy, episode: _Lane, intervention: Intervention | None) -> Record:
    """The line of an episode that ended by itself. Raises CounterError, and ValueError for one left untouched."""
    info, donor = episode.info, _donor(episode, intervention)
    counters = _counters(episode)
    if intervention is not None:
        _require_intervened(episode, intervention)
    _require_agreement(policy, episode, counters)
    return {
        "seed": episode.seed,
        "success": bool(info["success"]),
        "choice": info["choice"],
        "answer": info["answer"],
        "donor_answer": None if donor is None else donor.answer,
        "donor_seed": None if donor is None else donor.seed,
        "ticks": int(info["tick"]),
        "cue_end": episode.cue_ticks,
        "onset": int(info["onset"]),
        "return": episode.reward,
        "counters": counters,
        "intervened": episode.intervened,
        "drift": list(episode.drift),
        "error": None,
    }


def _failed(seed: int, error: str) -> Record:
    """The line of an episode whose environment failed: neither a success nor a failure."""
    outcome = dict.fromkeys(
        ("success", "choice", "answer", "donor_answer", "donor_seed", "ticks", "cue_end", "onset", "return")
    )
    counters = dict.fromkeys(("observations", "plans", "writes", "renders"), 0)
    return {"seed": seed, **outcome, "counters": counters, "intervened": 0, "drift": [], "error": error}


def _counters(episode: _Lane) -> dict[str, int]:
    count = episode.session.counters
    shown = int(episode.info["frames"]) - 1  # all but the frame after the last action
    return {"observations": count.observations, "plans": count.plans, "writes": count.writes, "renders": shown}


def _require_agreement(policy: Policy, episode: _Lane, counters: dict[str, int]) -> None:
    ticks = int(episode.info["tick"])
    asked = policy.writes(ticks) if episode.fresh else range(1)
    expected = {
        "observations": ticks,
        "plans": math.ceil(ticks / policy.replan),
        "writes": min(max(counters["writes"], asked[0]), asked[-1]),
        "renders": ticks,
    }
    if counters != expected:
        raise CounterError(
            f"episode of seed {episode.seed}: expected {expected} for {ticks} ticks and a plan every "
            f"{policy.replan}, found {counters}; an observation was skipped, repeated or not rendered"
        )
    if episode.fresh and episode.session.counters.moves == 0:
        raise CounterError(
            f"episode of seed {episode.seed}: expected memory to move, found every memory/ entry unchanged over "
            f"{ticks} ticks; the policy asks for writes that store nothing"
        )


def _require_intervened(episode: _Lane, intervention: Intervention) -> None:
    """An episode that was over before the intervention was due says nothing of it, however it ended."""
    if intervention.at == "cue" and not episode.cue_ticks:
        raise ValueError(
            f"episode of seed {episode.seed}: expected a cue, at whose end {intervention.label} begins, found none; "
            "choose a tick"
        )
    if not episode.intervened:
        raise ValueError(
            f"episode of seed {episode.seed}: expected it to last beyond tick {_tick_meant(episode, intervention.at)}, "
            f"at which {intervention.label} begins, found it over after {episode.session.tick}; choose an earlier tick"
        )


def require_memory(policy: Policy, intervention: Intervention) -> None:
    """Raise ValueError when there is no memory to intervene on."""
    if not select(policy.init(1), "memory/"):
        raise ValueError(
            f"{intervention.label}: expected a policy with memory/ entries in its carry, found none; "
            "evaluate a policy without memory without an intervention"
        )


def require_whole(record: Record) -> None:
    """EpisodeError if the environment failed in this episode: half an episode is not a film."""
    if record["error"] is not None:
        seed, do = record["seed"], "see what its environment says and film it again"
        raise EpisodeError(f"seed {seed}: expected a whole episode to film, found {record['error']}; {do}")
