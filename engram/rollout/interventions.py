"""What if the policy remembered something else? Causal tests of memory, as pure functions of a carry.

An intervention changes only the `memory/` entries of an episode, and only between two ticks: before `observe` of tick
`at` (the onset of the choice unless said otherwise; "cue" is the first tick that shows no cue any more), so that
everything `observe` computes for `act`, keys and values included, comes from the changed memory. Zero, noise and freeze
do so again before every later `observe`; reset and swap do it once. At that moment memory holds ticks 0..at-1. A plan
made before `at` is played to its end: no extra plan is forced, and the counters stay those of an untouched episode. An
episode that is over before `at` is refused: its outcome is that of an untouched one, and must not count under the name
of the intervention.

Zero and noise change tokens, the floating-point entries of three axes or more; clocks, counts, pointers and validity
flags stay, so that the policy still reads the same slots. The others replace every `memory/` entry. Source of noise:
muVLA, arXiv 2606.12497.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from engram.carry import Carry

At = int | Literal["cue"] | None  # the tick of the first change; None: the onset


@dataclass(frozen=True)
class Donor:
    """Another episode: its seed, the answer it was shown, and its `memory/` row at its own onset, or at a tick."""

    seed: int
    answer: str
    memory: Carry


@dataclass(frozen=True)
class Moment:
    """Where in which episode a memory is changed.

    seed, tick   the episode and the control tick about to be observed
    at           the tick of the first change
    start        the memory this episode began with
    held         the memory as it was before the first change
    donor        the episode whose memory is given to this one, when there is one
    """

    seed: int
    tick: int
    at: int
    start: Carry
    held: Carry
    donor: Donor | None


@dataclass(frozen=True)
class Intervention:
    """A change of memory, its name in results, when it begins, and who gives to whom by seed."""

    name: str
    change: Callable[[Carry, Moment], Carry]
    at: At = None
    donors: Mapping[int, Donor] | None = None

    def __post_init__(self) -> None:
        """Refuse a tick before the first: there is nothing to change yet."""
        if isinstance(self.at, int) and self.at < 1:
            raise ValueError(f"{self.name}: expected a tick >= 1, found {self.at}; memory holds nothing at tick 0")

    def require_something(self, at: int) -> None:
        """ValueError for a reset at tick 0, where memory is a new episode's anyway: the onset of a task without cue."""
        if self.name == "reset" and at == 0:
            do = "name a later tick (at)"
            raise ValueError(f"reset: expected memory to forget, found a choice from the first tick on; {do}")

    @property
    def label(self) -> str:
        """The name, with its tick where one was given: `freeze@5`."""
        return self.name if self.at is None else f"{self.name}@{self.at}"


def zero(at: At = None) -> Intervention:
    """Memory is zero from `at` on: what the policy does with no memory but its own weights.

    Where writes are standardised (`Design.standardise`) zero is also what was written on average before training.
    """
    return Intervention("zero", _zero, at)


def noise(at: At = None) -> Intervention:
    """From `at` on memory is Gaussian noise, i.i.d., with the standard deviation of the entry it replaces."""
    return Intervention("noise", _noise, at)


def freeze(at: At = None) -> Intervention:
    """Memory stays what it was at `at`: nothing is learned of the episode from then on."""
    return Intervention("freeze", lambda memory, moment: moment.held, at)


def reset(at: At = None) -> Intervention:
    """At `at`, once, memory is that of a new episode: all before is forgotten, what follows is remembered."""
    return Intervention("reset", lambda memory, moment: moment.start if moment.tick == moment.at else memory, at)


def swap(donors: Mapping[int, Donor], at: At = None) -> Intervention:
    """At `at`, once, memory becomes another episode's: a policy that acts on its memory now gives that one's answer."""
    return Intervention("swap", _swap, at, donors)


def _zero(memory: Carry, moment: Moment) -> Carry:
    return _tokens(memory, torch.zeros_like)


def _noise(memory: Carry, moment: Moment) -> Carry:
    # Seeded by episode and tick: the same noise whatever the lanes, and after a resume.
    generator = torch.Generator().manual_seed(moment.seed * 1_000_003 + moment.tick)
    return _tokens(memory, lambda old: _like(torch.randn(old.shape, generator=generator), old))


def _like(unit: Tensor, old: Tensor) -> Tensor:
    return unit.to(old) * old.std(correction=0)


def _swap(memory: Carry, moment: Moment) -> Carry:
    if moment.tick != moment.at:
        return memory
    assert moment.donor is not None, "swap without a donor"
    return {key: moment.donor.memory[key].to(value) for key, value in memory.items()}


def _tokens(memory: Carry, change: Callable[[Tensor], Tensor]) -> Carry:
    return {key: change(x) if x.is_floating_point() and x.ndim >= 3 else x for key, x in memory.items()}
