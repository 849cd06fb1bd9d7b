"""Where every entry of a bank lay at every tick of a training window, found in one pass without gradients.

What a bank holds follows from the tokens written, not from what is learned of them. So a window needs no bank that is
carried from tick to tick: all entries that ever were (those it begins with, one for each tick, and one for each merge)
lie in one tensor, and a slot at a tick is a number in it. Keys and values are then projected once for each entry, and
all ticks read at once.

Legend: B rows, T ticks, L slots, N tokens of an entry, D width, E = L + 2 T entries that ever were.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from engram.memory import shelf as shelves
from engram.memory.shelf import Move, Shelf, pick


class Slots(NamedTuple):
    """What lay in each slot before the write of each tick.

    entry  int64   (B,T,L)  which of all entries
    time   float32 (B,T,L)  when it was written
    ok     bool    (B,T,L)  False for an empty slot
    """

    entry: Int64[Tensor, "B T L"]
    time: Float[Tensor, "B T L"]
    ok: Bool[Tensor, "B T L"]


class History(NamedTuple):
    """All entries of each stream, where they lay, and what is left on the shelf at the end.

    ever   (B,E,N,D) for each stream
    last   int64 (B,L), the entries on the shelf at the end
    """

    ever: tuple[Float[Tensor, "B E _ D"], ...]
    slots: Slots
    shelf: Shelf
    last: Int64[Tensor, "B L"]

    def left(self, stream: int) -> Float[Tensor, "B L _ D"]:
        """The entries of a stream that are left at the end; empty slots are zeros."""
        return pick(self.ever[stream], self.last) * (self.shelf.writes > 0)[..., None, None]


@torch.no_grad()
def replay(
    shelf: Shelf,
    entries: Sequence[Float[Tensor, "B L _ D"]],
    written: Sequence[Float[Tensor, "B T _ D"]],
    time_BT: Float[Tensor, "B T"],
    first_BT: Bool[Tensor, "B T"],
    write_BT: Bool[Tensor, "B T"],
    rule: str,
) -> History:
    """The history of streams that agree on what is merged.

    Args:
        shelf, entries: what the window begins with, the latter for each stream.
        written: what each stream writes at each tick.
        time_BT: when; write_BT: whether; first_BT: the shelf is emptied before this tick.
        rule: of shelf.py.
    """
    (rows, ticks), begun = time_BT.shape, entries[0].shape[1]
    ever = tuple(torch.cat([e, w, torch.zeros_like(w)], 1) for e, w in zip(entries, written, strict=True))
    at_BL = torch.arange(begun, device=time_BT.device).expand(rows, -1)
    fresh, kept = shelves.empty(rows, begun, time_BT.device), []
    for t in range(ticks):
        shelf = _where(first_BT[:, t], fresh, shelf)
        kept.append((at_BL, shelf.time, shelf.writes > 0))
        after, moved_BL = _write(shelf, at_BL, ever, time_BT[:, t], begun + t, begun + ticks + t, rule)
        shelf = _where(write_BT[:, t], after, shelf)
        at_BL = torch.where(write_BT[:, t, None], moved_BL, at_BL)
    entry, time, ok = (torch.stack(parts, 1) for parts in zip(*kept, strict=True))
    return History(ever, Slots(entry, time, ok), shelf, at_BL)


def _write(
    shelf: Shelf, at_BL: Tensor, ever: Sequence[Tensor], time_B: Tensor, new: int, merged: int, rule: str
) -> tuple[Shelf, Tensor]:
    """The shelf after entry `new` has come, and what lies in its slots; two that become one are put at `merged`."""
    last_B = pick(at_BL, ((shelf.writes > 0).sum(1) - 1).clamp(min=0))
    near_B = mean([shelves.alike(pick(x, last_B), x[:, new]) for x in ever])
    move = shelves.plan(shelf, near_B, rule)
    with_new_BM = torch.cat([at_BL, torch.full_like(at_BL[:, :1], new)], 1)
    moved_BL = pick(with_new_BM, move.take)
    if rule != "fifo":
        moved_BL = _merge(move, with_new_BM, moved_BL, ever, merged)

    def alike(i_B: Tensor, j_B: Tensor) -> Tensor:
        one_B, other_B = pick(moved_BL, i_B), pick(moved_BL, j_B)
        return mean([shelves.alike(pick(x, one_B), pick(x, other_B)) for x in ever])

    return shelves.moved(shelf, move, near_B, time_B, alike), moved_BL


def _merge(move: Move, with_new_BM: Tensor, moved_BL: Tensor, ever: Sequence[Tensor], merged: int) -> Tensor:
    """Put the merged entry, where there is one, among all entries and into its slot."""
    at_B = move.at.clamp(min=0)
    older_B, newer_B = pick(with_new_BM, at_B), pick(with_new_BM, at_B + 1)
    share_B = pick(move.share, at_B)[:, None, None]
    for x in ever:
        x[:, merged] = torch.lerp(pick(x, older_B), pick(x, newer_B), share_B)
    here_BL = torch.arange(moved_BL.shape[1], device=at_B.device) == move.at[:, None]
    return torch.where(here_BL, merged, moved_BL)


def mean(parts: Sequence[Tensor]) -> Tensor:
    """Of tensors of one shape."""
    return parts[0] if len(parts) == 1 else torch.stack(tuple(parts)).mean(0)


def _where(mask_B: Tensor, yes: Shelf, no: Shelf) -> Shelf:
    return Shelf(*(torch.where(mask_B[:, None], a, b) for a, b in zip(yes, no, strict=True)))
