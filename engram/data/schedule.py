"""Which frame each slot trains on at each step: a pure function of (step, slot).

Legend: S slots of this rank, G = S * world slots of all ranks, T ticks of a window, E episodes.
"""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Part of a run's identity. Raise it with every change after which a step shows other frames than before: a run that was
# begun with the old order must not go on with the new one. 1: `Episodes` in the order of the permutation; 2: alike.
ORDER = 2
POOL = 8  # steps among which `Episodes` sorts by length


@dataclass(frozen=True)
class Ticks:
    """The frames of one step, each array (S, T).

    episode  int64  episode of the data set
    tick     int64  position within the episode, from 0
    first    bool   the slot begins an episode here
    valid    bool   False for padding, which repeats a real frame
    """

    episode: NDArray[np.int64]
    tick: NDArray[np.int64]
    first: NDArray[np.bool_]
    valid: NDArray[np.bool_]

    def trimmed(self) -> "Ticks":
        """Without the last ticks that are padding in every slot: whole episodes end with the longest of them."""
        end = int(np.flatnonzero(self.valid.any(0)).max(initial=0)) + 1
        return Ticks(self.episode[:, :end], self.tick[:, :end], self.first[:, :end], self.valid[:, :end])


class Schedule:
    """Streams of whole episodes: each slot plays its episodes back to back and never skips a tick.

    In every epoch a seeded permutation of all episodes is dealt out to all slots of all ranks, so that an epoch shows
    each episode to exactly one slot; the deal moves on by one slot per epoch, so that no slot always gets the odd
    one. Slots go on to the next epoch on their own. Slot g of rank r is slot r*S + g of all.

    Args:
        lengths: int (E,) ticks of each episode, all positive.
        slots: S, slots of this rank.
        ticks: T, a window is T consecutive ticks of the slot's stream; episodes may begin inside it.
        seed: of the permutations.
        rank, world: which share of the slots this process has.
        stagger: slot g begins with g/G of a mean episode of padding. Episodes of equal length would otherwise put all
            slots in the same phase for ever, and an update would see nothing but beginnings, or nothing but ends.
    """

    def __init__(
        self,
        lengths: NDArray[np.int64],
        slots: int,
        ticks: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        stagger: bool = False,
    ):
        self._lengths = _checked(lengths, slots, ticks, rank, world)
        _require_enough(self._lengths, slots, world)
        self.slots, self.ticks, self.seed, self.rank, self.world = slots, ticks, seed, rank, world
        spread = float(self._lengths.mean()) / (slots * world) if stagger else 0.0
        mine = range(rank * slots, (rank + 1) * slots)
        self._streams = [_Stream(self._lengths, g, slots * world, seed, int(spread * g)) for g in mine]

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which all slots together play about as many episodes as there are."""
        return max(1, round(int(self._lengths.sum()) / (self.slots * self.world * self.ticks)))

    def __getitem__(self, step: int) -> Ticks:
        """The frames of `step` >= 0. Any step at once, in any order: no state is left behind but a memo."""
        places = [stream.locate(step * self.ticks, self.ticks) for stream in self._streams]
        episode, place = (np.stack(column) for column in zip(*places, strict=True))
        tick = np.maximum(place, 0)
        return Ticks(episode, tick, place == 0, place >= 0)


class Episodes:
    """Whole episodes: a window is one episode in each slot, padded at its end to the length of the longest of all.

    In every epoch a seeded permutation of all episodes is dealt out, G at a step. Within pools of a few steps,
    episodes of like length share a step, so that little of a window is padding; the order of the steps is random.
    Arguments as for `Schedule`.
    """

    def __init__(self, lengths: NDArray[np.int64], slots: int, seed: int, rank: int = 0, world: int = 1):
        self._lengths = _checked(lengths, slots, 1, rank, world)
        _require_enough(self._lengths, slots, world)
        self.slots, self.seed, self.rank, self.world = slots, seed, rank, world
        self._epochs: dict[int, NDArray[np.int64]] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which each episode is shown about once."""
        return max(1, round(len(self._lengths) / (self.slots * self.world)))

    def __getitem__(self, step: int) -> Ticks:
        """The episodes of `step` >= 0."""
        place, total = (step * self.world + self.rank) * self.slots + np.arange(self.slots), len(self._lengths)
        episode = np.array([self._epoch(at // total)[at % total] for at in place.tolist()])[:, None]
        last_S1, tick_T = self._lengths[episode] - 1, np.arange(int(self._lengths.max()))
        tick = np.minimum(tick_T, last_S1)
        return Ticks(np.broadcast_to(episode, tick.shape), tick, tick_T == np.zeros_like(episode), tick_T <= last_S1)

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        """The order of an epoch. What completes the last step of the epoch before comes first, unsorted."""
        if epoch not in self._epochs:
            self._epochs = {e: order for e, order in self._epochs.items() if abs(e - epoch) <= 1}
            total, step = len(self._lengths), self.slots * self.world
            order, head = _permutation(total, self.seed, epoch), -epoch * total % step
            pools = np.split(order[head:], range(POOL * step, total - head, POOL * step))
            steps = [part for pool in pools for part in self._alike(pool, step)]
            whole = [part for part in steps if len(part) == step]
            shuffled = [whole[i] for i in _permutation(len(whole), self.seed + 1, epoch)]
            self._epochs[epoch] = np.concatenate([order[:head], *shuffled, *(s for s in steps if len(s) < step)])
        return self._epochs[epoch]

    def _alike(self, pool: NDArray[np.int64], step: int) -> list[NDArray[np.int64]]:
        by_length = pool[np.argsort(self._lengths[pool], kind="stable")]
        return np.split(by_length, range(step, len(pool), step))


class Groups:
    """Some ticks of an episode in each slot, drawn at random and put in order (MemoryVLA's "group").

    Far fewer frames stand for an episode than it has, but a memory that is written at them sees other gaps than in
    deployment. Episodes of fewer than T ticks are shown whole, and padded. Arguments as for `Schedule`.
    """

    def __init__(self, lengths: NDArray[np.int64], slots: int, ticks: int, seed: int, rank: int = 0, world: int = 1):
        self._lengths = _checked(lengths, slots, ticks, rank, world)
        _require_enough(self._lengths, slots, world)
        self.slots, self.ticks, self.seed, self.rank, self.world = slots, ticks, seed, rank, world

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which a group of each episode is shown about once."""
        return max(1, round(len(self._lengths) / (self.slots * self.world)))

    def __getitem__(self, step: int) -> Ticks:
        """The frames of `step` >= 0."""
        place, total = (step * self.world + self.rank) * self.slots + np.arange(self.slots), len(self._lengths)
        order = {epoch: _permutation(total, self.seed, epoch) for epoch in set((place // total).tolist())}
        episode = np.array([order[at // total][at % total] for at in place.tolist()])
        drawn = [self._drawn(at, int(self._lengths[e])) for at, e in zip(place.tolist(), episode.tolist(), strict=True)]
        tick, valid = (np.stack(column) for column in zip(*drawn, strict=True))
        first = np.broadcast_to(np.arange(self.ticks) == 0, tick.shape)
        return Ticks(np.broadcast_to(episode[:, None], tick.shape), tick, first, valid)

    def _drawn(self, place: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        count = min(self.ticks, length)
        tick = np.full(self.ticks, length - 1)
        tick[:count] = np.sort(np.random.default_rng([self.seed + 2, place]).permutation(length)[:count])
        return tick, np.arange(self.ticks) < count


class Shuffled:
    """Independent frames, for policies without memory: every tick begins an episode of its own.

    In every epoch a seeded permutation of all frames is dealt out, so that each frame is shown once. Arguments as for
    `Schedule`; `ticks` is a number.
    """

    def __init__(self, lengths: NDArray[np.int64], slots: int, ticks: int, seed: int, rank: int = 0, world: int = 1):
        self._lengths = _checked(lengths, slots, ticks, rank, world)
        self.slots, self.ticks, self.seed, self.rank, self.world = slots, ticks, seed, rank, world
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._epochs: dict[int, NDArray[np.int64]] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which each frame is shown about once."""
        return max(1, round(int(self._lengths.sum()) / (self.slots * self.world * self.ticks)))

    def __getitem__(self, step: int) -> Ticks:
        """The frames of `step` >= 0."""
        size, total = self.slots * self.ticks, int(self._lengths.sum())
        place = (step * self.world + self.rank) * size + np.arange(size)
        frame = np.empty(size, np.int64)
        for epoch in np.unique(place // total).tolist():
            mine = place // total == epoch
            frame[mine] = self._epoch(epoch)[place[mine] % total]
        grid = frame.reshape(self.slots, self.ticks)
        episode = np.searchsorted(self._starts, grid, side="right") - 1
        every = np.ones(grid.shape, bool)
        return Ticks(episode, grid - self._starts[episode], every, every.copy())

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._epochs:
            # two epochs at most are in use at a time: forget older ones
            self._epochs = {e: p for e, p in self._epochs.items() if abs(e - epoch) <= 1}
            self._epochs[epoch] = _permutation(int(self._lengths.sum()), self.seed, epoch)
        return self._epochs[epoch]


class _Stream:
    """The endless sequence of episodes of one slot, extended epoch by epoch and kept."""

    def __init__(self, lengths: NDArray[np.int64], slot: int, slots: int, seed: int, lead: int):
        self._lengths, self._slot, self._slots, self._seed = lengths, slot, slots, seed
        self._epochs = 0
        self._episodes: list[int] = []
        self._starts: list[int] = [lead]  # tick of the stream at which each episode, and the next to be added, begins
        self._extend()

    def locate(self, start: int, ticks: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Episode and tick for positions start .. start+ticks-1 of the stream; tick is negative in the lead."""
        while self._starts[-1] < start + ticks:
            self._extend()
        low = max(bisect_right(self._starts, start) - 1, 0)
        high = max(bisect_right(self._starts, start + ticks - 1), 1)
        starts, episodes = np.array(self._starts[low:high]), np.array(self._episodes[low:high])
        position = np.arange(start, start + ticks)
        which = np.maximum(np.searchsorted(starts, position, side="right") - 1, 0)
        return episodes[which], position - starts[which]

    def _extend(self) -> None:
        order = _permutation(len(self._lengths), self._seed, self._epochs)
        mine = order[(self._slot - self._epochs) % self._slots :: self._slots].tolist()
        for episode in mine:
            self._episodes.append(episode)
            self._starts.append(self._starts[-1] + int(self._lengths[episode]))
        self._epochs += 1


def _permutation(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(count)


def _require_enough(lengths: NDArray[np.int64], slots: int, world: int) -> None:
    if len(lengths) < slots * world:
        raise ValueError(
            f"expected at least {slots * world} episodes, one per slot ({slots} slots x {world} ranks), "
            f"found {len(lengths)}; use fewer slots or record more demonstrations"
        )


def _checked(lengths: NDArray[np.int64], slots: int, ticks: int, rank: int, world: int) -> NDArray[np.int64]:
    lengths = np.asarray(lengths, np.int64)
    if not len(lengths) or lengths.min() < 1:
        raise ValueError(f"expected episodes of at least one tick, found {lengths.tolist()}; drop empty ones")
    if slots < 1 or ticks < 1:
        raise ValueError(f"expected slots >= 1 and ticks >= 1, found {slots} and {ticks}; raise them")
    if not 0 <= rank < world:
        raise ValueError(f"expected 0 <= rank < world, found rank {rank} of {world}; ranks count from 0")
    return lengths
