"""MemoryVLA's bank as plainly as it can be said, on the weights of ours: the reference of P2, P3 and the tests.

Row after row, a Python list of entries for each; at every read keys and values of all tokens of all entries are
projected anew; at every write into a full list all neighbours are compared. The same mathematics as
engram/memory/bank.py, none of its forms.

Legend: N tokens of a stream, M tokens of all entries, D width, H heads.
"""

from dataclasses import dataclass, field
from math import sqrt

import torch
from torch import Tensor

from engram.memory.bank import Bank
from engram.memory.retrieval import Block, Retrieval


@dataclass
class Entry:
    """Tokens of each stream, when they were written, and how many writes they hold."""

    tokens: dict[int, Tensor]
    time: float
    count: float = 1.0


@dataclass
class Row:
    """What one episode remembers: a list for each group of streams, and the writes so far."""

    entries: dict[int, list[Entry]]
    written: int = 0


@dataclass
class PlainBank:
    """`rows` episodes; state lives here, as it does in the released code."""

    bank: Bank
    rows: list[Row] = field(default_factory=list)

    def begin(self, row: int) -> None:
        """Forget a row, or make it."""
        fresh = Row({g: [] for g in range(len(self.bank.groups))})
        self.rows[row : row + 1] = [fresh]

    def read(self, row: int, x_ND: Tensor, tick: int) -> Tensor:
        """Tokens of now that know the past."""
        parts = x_ND.split(self.bank.streams)
        return torch.cat([self._stream(row, s, part, tick) for s, part in enumerate(parts)])

    def write(self, row: int, x_ND: Tensor, tick: int) -> None:
        """Append, and consolidate if there are too many."""
        kept, parts = self.rows[row], x_ND.detach().split(self.bank.streams)
        time = float(kept.written if self.bank.time == "index" else tick)
        for g, group in enumerate(self.bank.groups):
            kept.entries[g].append(Entry({s: parts[s].clone() for s in group}, time))
            if len(kept.entries[g]) > self.bank.capacity:
                consolidate(kept.entries[g], self.bank.merge)
        kept.written += 1

    def _stream(self, row: int, s: int, x_ND: Tensor, tick: int) -> Tensor:
        bank, kept = self.bank, self.rows[row]
        entries = kept.entries[0 if bank.aligned else s]
        if not entries:
            return x_ND
        memory = [entry.tokens[s] for entry in entries]
        times = x_ND.new_tensor([entry.time for entry in entries])
        return retrieve(bank.read_by[s], x_ND, memory, tick - times if bank.time == "age" else times)


def retrieve(net: Retrieval, x_ND: Tensor, memory: list[Tensor], times: Tensor) -> Tensor:
    """One stream of one row: every block projects every entry."""
    value_MD = torch.cat(memory)
    key_MD = value_MD
    if net.code is not None:
        key_MD = value_MD + net.code(times).repeat_interleave(len(memory[0]), 0)
    h_ND = x_ND
    for block in net.blocks:
        h_ND = attended(block, h_ND, key_MD, value_MD)
    if net.gate is None:
        return 0.5 * (x_ND + h_ND)
    gate_ND = net.gate(torch.cat([x_ND, h_ND], -1)).sigmoid()
    return gate_ND * x_ND + (1 - gate_ND) * h_ND


def attended(block: Block, x_ND: Tensor, key_MD: Tensor, value_MD: Tensor) -> Tensor:
    """One block: scaled dot products, softmax, feed-forward net."""
    q = block.query(x_ND if block.form == "paper" else block.norm(x_ND))
    q_HND, k_HMD, v_HMD = (
        t.unflatten(-1, (block.heads, -1)).transpose(0, 1) for t in (q, block.key(key_MD), block.value(value_MD))
    )
    score_HNM = q_HND @ k_HMD.mT / sqrt(q_HND.shape[-1])
    if block.own and len(x_ND) > 1:
        same_NM = torch.arange(len(x_ND))[:, None] == torch.arange(len(key_MD)) % len(x_ND)
        score_HNM = score_HNM + block.own * same_NM
    share_HNM = score_HNM.softmax(-1)
    seen_ND = block.out((share_HNM @ v_HMD).transpose(0, 1).flatten(1))
    if block.form == "paper":
        x_ND = block.norm(x_ND + seen_ND)
        return block.norm_after(x_ND + block.feed(x_ND))
    x_ND = x_ND + seen_ND
    return x_ND + block.feed(block.norm_after(x_ND))


def consolidate(entries: list[Entry], rule: str) -> None:
    """Merge the two neighbours that are most alike of all, or drop the oldest."""
    if rule == "fifo":
        entries.pop(0)
        return
    likeness = [alike(a, b).item() for a, b in zip(entries, entries[1:], strict=False)]
    i = max(range(len(likeness)), key=likeness.__getitem__)
    a, b = entries[i], entries[i + 1]
    share = b.count / (a.count + b.count) if rule == "weighted" else 0.5
    tokens = {s: (1 - share) * a.tokens[s] + share * b.tokens[s] for s in a.tokens}
    entries[i : i + 2] = [Entry(tokens, (1 - share) * a.time + share * b.time, a.count + b.count)]


def alike(a: Entry, b: Entry) -> Tensor:
    """Mean over streams of the mean over tokens of the cosine."""
    each = [torch.cosine_similarity(a.tokens[s], b.tokens[s], dim=-1).mean() for s in a.tokens]
    return torch.stack(each).mean()


def play(plain: PlainBank, x_BTND: Tensor, tick_BT: Tensor, first_BT: Tensor, write_BT: Tensor) -> Tensor:
    """A whole window: what is read at every tick; rows go on from where they are."""
    fused_BT = []
    for row in range(len(x_BTND)):
        fused_T = []
        for t in range(x_BTND.shape[1]):
            if first_BT[row, t]:
                plain.begin(row)
            fused_T.append(plain.read(row, x_BTND[row, t], int(tick_BT[row, t])))
            if write_BT[row, t]:
                written = fused_T[-1] if plain.bank.write_fused else x_BTND[row, t]
                plain.write(row, written, int(tick_BT[row, t]))
        fused_BT.append(torch.stack(fused_T))
    return torch.stack(fused_BT)
