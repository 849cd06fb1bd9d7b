"""A shelf of L entries in the order of their writing, which merges or drops when it is full (MemoryVLA, arXiv
2508.19236, 3.3: consolidation).

When an entry comes to a full shelf, the two neighbours that are most alike become one, the new one among them:

weighted  their mean, each counted as often as it has been written into (ours: a recursive plain mean lets what came
          late outweigh what came early)
plain     half of each, the paper's
fifo      nothing is merged, the oldest goes

Here is the bookkeeping alone: how alike neighbours are is kept, so that a write compares three pairs and not all, and
everything has a fixed shape and stays on its device. What an entry holds is moved by the same `Move`.

Legend: B rows, L slots of the shelf, N tokens of an entry, D width.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

RULES = ("weighted", "plain", "fifo")
Alike = Callable[[Tensor, Tensor], Tensor]  # of the entries in slots i_B and j_B, (B,)


class Shelf(NamedTuple):
    """What is known of the entries, oldest first; empty slots come last.

    time    float32 (B,L)  when an entry was written; of merged ones the mean
    writes  float32 (B,L)  how many an entry holds; 0: an empty slot
    near    float32 (B,L)  how alike an entry and the next one are; -inf where one of the two is missing
    """

    time: Float[Tensor, "B L"]
    writes: Float[Tensor, "B L"]
    near: Float[Tensor, "B L"]


class Move(NamedTuple):
    """A write: slot j gets entry `take[j]` of L + 1, the new one being the last, with `share[j]` of the one after it.

    at  int64 (B,)  slot of the merged entry; -1 where nothing was merged
    """

    take: Int64[Tensor, "B L"]
    share: Float[Tensor, "B L"]
    at: Int64[Tensor, "B"]

    def of(self, old: Float[Tensor, "B L *entry"], new: Float[Tensor, "B *entry"]) -> Float[Tensor, "B L *entry"]:
        """The slots after the write, from L old entries and the new one; without gradient."""
        slots, at_B = old.shape[1], self.at.clamp(min=0)
        out = pick(old, self.take.clamp(max=slots - 1))
        merged = torch.lerp(pick(old, at_B), _at(old, new, at_B + 1), _wide(pick(self.share, at_B), new))
        _put(out, at_B, self.at >= 0, merged)
        _put(out, self.take.argmax(1), (self.take == slots).any(1), new)
        return out

    def only(self, mask_B: Bool[Tensor, "B"]) -> "Move":
        """The same in some rows; in the others everything stays."""
        stay_L = torch.arange(self.take.shape[1], device=self.at.device)
        mask_B1 = mask_B[:, None]
        share_BL = torch.where(mask_B1, self.share, 0.0)
        return Move(torch.where(mask_B1, self.take, stay_L), share_BL, torch.where(mask_B, self.at, -1))


def empty(batch: int, slots: int, device: torch.device | str) -> Shelf:
    """A shelf on which nothing lies."""
    zeros = torch.zeros(batch, slots, device=device)
    return Shelf(zeros, zeros, torch.full_like(zeros, -torch.inf))


def pick(entries: Shaped[Tensor, "B M ..."], index: Int64[Tensor, "B *slots"]) -> Shaped[Tensor, "B ..."]:
    """Entries (B,*slots,*entry) by their place among M (B,M,*entry), row by row."""
    rows = torch.arange(len(index), device=index.device).reshape(-1, *[1] * (index.ndim - 1))
    return entries[rows, index]


def plan(shelf: Shelf, near_new_B: Float[Tensor, "B"], rule: str) -> Move:
    """How a new entry, `near_new_B` alike to the last one, finds its slot."""
    slots = shelf.writes.shape[1]
    slot_L, size_B = torch.arange(slots, device=shelf.writes.device), (shelf.writes > 0).sum(1)
    full_B = size_B == slots
    free_BL = torch.where(slot_L == size_B[:, None], slots, slot_L)
    if rule == "fifo":
        take_BL = torch.where(full_B[:, None], slot_L + 1, free_BL)
        return Move(take_BL, torch.zeros_like(shelf.writes), torch.full_like(size_B, -1))
    at_B = torch.where(full_B, _with_new(shelf.near, near_new_B).argmax(1), -1)
    take_BL = torch.where(full_B[:, None], slot_L + (slot_L > at_B[:, None]), free_BL)
    writes_BM = _appended(shelf.writes, 1.0)
    older_B, newer_B = (pick(writes_BM, (at_B + step).clamp(min=0)) for step in (0, 1))
    share_B = newer_B / (older_B + newer_B) if rule == "weighted" else torch.full_like(newer_B, 0.5)
    return Move(take_BL, torch.where(slot_L == at_B[:, None], share_B[:, None], 0.0), at_B)


def moved(shelf: Shelf, move: Move, near_new_B: Float[Tensor, "B"], time_B: Float[Tensor, "B"], alike: Alike) -> Shelf:
    """The shelf after a write at `time_B`; `alike` compares entries as they lie after it."""
    slots = shelf.writes.shape[1]
    writes_BM = _appended(shelf.writes, 1.0)
    taken_BL, next_BL = pick(writes_BM, move.take), pick(writes_BM, (move.take + 1).clamp(max=slots))
    writes_BL = taken_BL + torch.where(move.share > 0, next_BL, 0.0)
    size_B = (writes_BL > 0).sum(1)
    slot_L = torch.arange(slots, device=size_B.device)
    near_BL = pick(_with_new(shelf.near, near_new_B), move.take.clamp(max=slots - 1))
    near_BL = torch.where(slot_L == (size_B - 2)[:, None], near_new_B[:, None], near_BL)
    for left_B in (move.at - 1, move.at):  # the merged entry and its two neighbours; without one: none is asked
        inside_B = (move.at >= 0) & (left_B >= 0)
        pair_B = left_B.clamp(0, max(0, slots - 2))
        again_B = alike(pair_B, (pair_B + 1).clamp(max=slots - 1))
        near_BL = torch.where((slot_L == left_B[:, None]) & inside_B[:, None], again_B[:, None], near_BL)
    near_BL = near_BL.masked_fill(slot_L >= (size_B - 1)[:, None], -torch.inf)
    return Shelf(move.of(shelf.time, time_B), writes_BL, near_BL)


def alike(a_BND: Float[Tensor, "B N D"], b_BND: Float[Tensor, "B N D"]) -> Float[Tensor, "B"]:
    """Mean over tokens of the cosine between two entries."""
    return torch.cosine_similarity(a_BND, b_BND, dim=-1).mean(1)


def _with_new(near_BL: Tensor, near_new_B: Tensor) -> Tensor:
    """How alike neighbours are on a full shelf with the new entry after it."""
    return torch.cat([near_BL[:, :-1], near_new_B[:, None]], 1)


def _appended(writes_BL: Tensor, one: float) -> Tensor:
    return torch.nn.functional.pad(writes_BL, (0, 1), value=one)


def _at(old: Tensor, new: Tensor, index_B: Tensor) -> Tensor:
    """Entry `index` of the old ones and the new one."""
    slots = old.shape[1]
    return torch.where(_wide(index_B < slots, new), pick(old, index_B.clamp(max=slots - 1)), new)


def _put(out: Tensor, slot_B: Tensor, mask_B: Tensor, entry: Tensor) -> None:
    """Write an entry into a slot of the rows in a mask, in place."""
    rows = torch.arange(len(out), device=out.device)
    out[rows, slot_B] = torch.where(_wide(mask_B, entry), entry, out[rows, slot_B])


def _wide(of_B: Tensor, like: Tensor) -> Tensor:
    return of_B.reshape(-1, *[1] * (like.ndim - 1))
