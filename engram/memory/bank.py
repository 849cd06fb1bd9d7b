"""A bank of what was perceived, of fixed size, read by attention: MemoryVLA's perceptual-cognitive memory (arXiv
2508.19236, 3.2-3.3; MemoryVLA++, arXiv 2606.09827).

An entry is one frame as tokens of several streams: perceptual ones, what was where, and a cognitive one, what it means.
Each stream is read on its own (retrieval.py); a full bank merges its most alike neighbours (shelf.py). Three ways in
which we differ from the released code unless asked:

time      keys know the age of an entry, in control ticks: now minus then. "index" is the number of the write instead,
          as there, where training counts frames and deployment counts calls
aligned   streams agree on what is merged, so that an entry stays one frame (or one group of them)
count     merged entries count as often as they have been written into

What is stored has no gradient (as there); reading has. `window` does all ticks of a training window at once: what is
stored where follows from the tokens alone, so that it is found without gradients and in whole numbers, and every
retrieval is one row of one batch. If what is written is what was read ("fused"), a tick needs the one before.

Legend: B rows, T ticks, L entries, N tokens of an entry over all streams, D width, E entries that ever were.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from engram import carry as carries
from engram.carry import Carry
from engram.memory import shelf as shelves
from engram.memory.base import Memory
from engram.memory.history import Slots, mean, replay
from engram.memory.retrieval import Past, Retrieval
from engram.memory.shelf import Shelf, pick

WRITTEN = "memory/written"  # int64 (B,): writes since the episode began


class Bank(Memory):
    """`capacity` entries of `streams` (tokens of each stream, of one width).

    Tokens should come at unit scale (a LayerNorm at their source): they are kept as they are, so that merging is linear
    in keys and values.

    time     "age", "index" or "none": what keys know of when an entry was written
    merge    "weighted", "plain" or "fifo" (shelf.py)
    write    "raw": the tokens of now are written; "fused": what became of them when they were read
    aligned  one decision for all streams on what is merged
    form, heads, blocks, fusion: how each stream is read (retrieval.py)

    ValueError for a capacity or a number of tokens below 1, and for heads that do not divide the width.
    """

    def __init__(
        self,
        streams: Sequence[int],
        width: int,
        capacity: int = 16,
        time: Literal["age", "index", "none"] = "age",
        merge: Literal["weighted", "plain", "fifo"] = "weighted",
        write: Literal["raw", "fused"] = "raw",
        aligned: bool = True,
        form: Literal["compact", "paper"] = "compact",
        heads: int = 4,
        blocks: int = 1,
        fusion: Literal["gate", "add"] = "gate",
    ):
        super().__init__()
        if capacity < 1:
            raise ValueError(
                f"capacity (L): expected at least 1 entry, found {capacity}; use no bank for a plain policy"
            )
        if not streams or min(streams) < 1:
            raise ValueError(f"streams: expected at least one, of 1 token or more, found {tuple(streams)}; give some")
        if width % heads:
            raise ValueError(f"heads: expected a divisor of {width}, found {heads}; choose another number")
        self.streams, self.width, self.capacity = tuple(streams), width, capacity
        self.time, self.merge, self.write_fused, self.aligned = time, merge, write == "fused", aligned
        timed = time != "none"
        self.read_by = nn.ModuleList(Retrieval(width, form, heads, blocks, timed, fusion) for _ in streams)
        self.groups = (tuple(range(len(streams))),) if aligned else tuple((s,) for s in range(len(streams)))

    def extra_repr(self) -> str:
        return (
            f"streams={self.streams}, capacity={self.capacity}, time={self.time}, merge={self.merge}, "
            f"write_fused={self.write_fused}, aligned={self.aligned}"
        )

    def init(self, batch: int) -> Carry:
        device = next(self.parameters()).device
        carry = {WRITTEN: torch.zeros(batch, dtype=torch.int64, device=device)}
        for s, tokens in enumerate(self.streams):
            carry[f"memory/entries{s}"] = torch.zeros(batch, self.capacity, tokens, self.width, device=device)
        for g in range(len(self.groups)):
            carry |= _kept(g, shelves.empty(batch, self.capacity, device))
        return carry

    def read(self, carry: Carry, query_BND: Tensor, tick_B: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of now (all streams in a row) that know the past; all of them are valid."""
        fused = []
        for s, x_BND in enumerate(query_BND.split(self.streams, 1)):
            shelf, retrieve = _shelf(carry, self._group(s)), self.read_by[s]
            past = retrieve.project(carry[f"memory/entries{s}"])
            fused.append(retrieve(x_BND, past, self._when(shelf.time, tick_B), shelf.writes > 0))
        return torch.cat(fused, 1), torch.ones_like(query_BND[..., 0], dtype=torch.bool)

    @torch.no_grad()
    def write(self, carry: Carry, x_BND: Tensor, tick_B: Tensor, mask_B: Tensor) -> Carry:
        new, parts = dict(carry), x_BND.split(self.streams, 1)
        time_B = self._stamp(tick_B, carry[WRITTEN])
        for g, streams in enumerate(self.groups):
            before, shelf = {s: carry[f"memory/entries{s}"] for s in streams}, _shelf(carry, g)
            last_B = ((shelf.writes > 0).sum(1) - 1).clamp(min=0)
            near_B = mean([shelves.alike(pick(before[s], last_B), parts[s]) for s in streams])
            move = shelves.plan(shelf, near_B, self.merge)
            after = {s: move.only(mask_B).of(before[s], parts[s]) for s in streams}

            def alike(i_B: Tensor, j_B: Tensor, after: dict[int, Tensor] = after) -> Tensor:
                return mean([shelves.alike(pick(x, i_B), pick(x, j_B)) for x in after.values()])

            moved = shelves.moved(shelf, move, near_B, time_B, alike)
            new |= carries.where(mask_B, _kept(g, moved), _kept(g, shelf))
            new |= {f"memory/entries{s}": x for s, x in after.items()}
        new[WRITTEN] = carry[WRITTEN] + mask_B
        return new

    def window(
        self,
        carry: Carry,
        x_BTND: Float[Tensor, "B T N D"],
        tick_BT: Int64[Tensor, "B T"],
        first_BT: Bool[Tensor, "B T"],
        write_BT: Bool[Tensor, "B T"],
    ) -> tuple[Float[Tensor, "B T N D"], Carry]:
        """Read, then write, at every tick of a window: what was read, and the carry after it.

        Equal to `read` and `write` tick by tick, rows with `first` forgetting before.
        """
        if self.write_fused:
            return self._scan(carry, x_BTND, tick_BT, first_BT, write_BT)
        written_BT, group = self._written(carry, first_BT, write_BT), self._is_group(first_BT, write_BT)
        after = {WRITTEN: written_BT[:, -1] + write_BT[:, -1]}
        parts, fused = x_BTND.split(self.streams, 2), {}
        for g, streams in enumerate(self.groups):
            entries = [carry[f"memory/entries{s}"] for s in streams]
            written = [parts[s].detach() for s in streams]
            time_BT = self._stamp(tick_BT, written_BT)
            history = replay(_shelf(carry, g), entries, written, time_BT, first_BT, write_BT, self.merge)
            when_BTL = self._when(history.slots.time, tick_BT)
            for i, s in enumerate(streams):
                if group:
                    fused[s] = self.read_by[s].group(parts[s], self.read_by[s].project(written[i]), when_BTL)
                else:
                    fused[s] = self._read_all(s, parts[s], history.ever[i], history.slots, when_BTL)
                after[f"memory/entries{s}"] = history.left(i)
            after |= _kept(g, history.shelf)
        return torch.cat([fused[s] for s in range(len(parts))], 2), after

    def _read_all(self, s: int, x_BTND: Tensor, ever_BEND: Tensor, slots: Slots, when_BTL: Tensor) -> Tensor:
        """A stream's retrieval at all ticks, each of which is a row."""
        past = self.read_by[s].project(ever_BEND)
        laid = {id(t): pick(t, slots.entry).flatten(0, 1) for t in (*past.keys, *past.values)}  # some are one tensor
        past = Past(*(tuple(laid[id(t)] for t in side) for side in past))
        fused = self.read_by[s](x_BTND.flatten(0, 1), past, when_BTL.flatten(0, 1), slots.ok.flatten(0, 1))
        return fused.unflatten(0, x_BTND.shape[:2])

    def _is_group(self, first_BT: Tensor, write_BT: Tensor) -> bool:
        """Whether all rows begin with the window, write at every tick and never fill the bank."""
        if first_BT.shape[1] > self.capacity + 1:
            return False
        return bool((first_BT[:, 0] & ~first_BT[:, 1:].any(1) & write_BT.all(1)).all())

    def _scan(
        self, carry: Carry, x_BTND: Tensor, tick_BT: Tensor, first_BT: Tensor, write_BT: Tensor
    ) -> tuple[Tensor, Carry]:
        """Tick by tick: what is written depends on what was read."""
        fresh, fused = self.init(len(x_BTND)), []
        carry = {key: carry[key] for key in fresh}
        for t in range(x_BTND.shape[1]):
            carry = carries.where(first_BT[:, t], fresh, carry)
            fused.append(self.read(carry, x_BTND[:, t], tick_BT[:, t])[0])
            carry = self.write(carry, fused[-1], tick_BT[:, t], write_BT[:, t])
        return torch.stack(fused, 1), carry

    def _written(self, carry: Carry, first_BT: Tensor, write_BT: Tensor) -> Tensor:
        """Writes since the row's episode began, before each tick of a window."""
        before_BT = write_BT.cumsum(1) - write_BT.long()
        begin_BT = torch.where(first_BT, before_BT, -1).cummax(1).values
        return before_BT + torch.where(begin_BT < 0, carry[WRITTEN][:, None], -begin_BT)

    def _stamp(self, tick: Tensor, written: Tensor) -> Tensor:
        """What is kept of when an entry is written."""
        return (written if self.time == "index" else tick).float()

    def _when(self, time: Float[Tensor, "*rows L"], tick: Int64[Tensor, "*rows"]) -> Float[Tensor, "*rows L"]:
        """What keys are told of it at `tick`."""
        return tick[..., None] - time if self.time == "age" else time

    def _group(self, stream: int) -> int:
        return 0 if self.aligned else stream


def _shelf(carry: Carry, group: int) -> Shelf:
    return Shelf(*(carry[f"memory/{name}{group}"] for name in Shelf._fields))


def _kept(group: int, shelf: Shelf) -> Carry:
    return {f"memory/{name}{group}": value for name, value in shelf._asdict().items()}
