"""P2: a step of MemoryVLA's bank (read, then write) when it is full, for one session and for sixteen.

Beside it the plain reference (plain_bank.py): a Python list for every session, keys and values of all entries projected
at every read, all neighbours compared at every write. Both are the paper's form: two post-norm blocks of one head,
plain merging, streams apart. Equal before anything is timed: what is read, over steps that merge.

Legend: B sessions, N tokens, D width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.plain_bank import PlainBank
from engram.bench import Bar, Ratio, alternate, assert_equal, result
from engram.carry import Carry
from engram.memory.bank import Bank

TITLE = "bank step, full: time of plain lists over ours (for 16 sessions: >= 2.5)"
AGAINST = ()
BAR = Bar("more", 1.4)
BARS = {1: BAR, 16: Bar("more", 2.5)}  # by the number of sessions
STREAMS = {
    "perceptual": (256, 256),
    "cognitive": (1, 1024),
}  # tokens and width; released with 4096, which weighs 1.6 GB
CAPACITY, BEFORE, COMPARED = 16, 17, 3  # entries; steps that fill the bank, and steps that are compared


def measure(seconds: float = 12.0) -> dict:
    """The JSON of the row; `seconds` for each number of sessions. The one that has less to spare decides."""
    ratios = {sessions: step_ratio(sessions, seconds) for sessions in BARS}
    decides = min(BARS, key=lambda sessions: ratios[sessions].median / BARS[sessions].value)
    each = {f"{sessions} sessions": {**ratios[sessions].json(), "bar": BARS[sessions].value} for sessions in BARS}
    shapes = {"capacity": CAPACITY, "streams": STREAMS, "blocks": 2, "heads": 1}
    return result(TITLE, BARS[decides], ratios[decides], decides=decides, sessions=each, shapes=shapes)


def step_ratio(sessions: int, seconds: float) -> Ratio:
    """Time of the plain step over ours, once what both read has been found equal."""
    torch.manual_seed(0)
    pairs = [Pair(sessions, *shape) for shape in STREAMS.values()]
    for tick in range(BEFORE + COMPARED):
        for pair in pairs:
            ours, plain = pair.step(tick), pair.plain_step(tick)
            if tick >= BEFORE:
                assert_equal(f"read at tick {tick}", ours, plain)
    return alternate(both(pairs, Pair.plain_step), both(pairs, Pair.step), seconds)


class Pair:
    """One stream's bank with what `sessions` episodes hold, and the same in lists."""

    def __init__(self, sessions: int, tokens: int, width: int):
        self.bank = paper_bank(tokens, width)
        self.carry: Carry = self.bank.init(sessions)
        self.plain = PlainBank(self.bank)
        for row in range(sessions):
            self.plain.begin(row)
        self.seen_TBND = torch.randn(BEFORE + COMPARED + 1, sessions, tokens, width)

    @torch.inference_mode()
    def step(self, tick: int) -> Tensor:
        """Read and write; what was read."""
        x_BND = self.seen_TBND[tick]
        tick_B, all_B = torch.full((len(x_BND),), tick), torch.ones(len(x_BND), dtype=torch.bool)
        read_BND = self.bank.read(self.carry, x_BND, tick_B)[0]
        self.carry = self.bank.write(self.carry, x_BND, tick_B, all_B)
        return read_BND

    @torch.inference_mode()
    def plain_step(self, tick: int) -> Tensor:
        """The same, row after row."""
        read = [self.plain.read(row, x_ND, tick) for row, x_ND in enumerate(self.seen_TBND[tick])]
        for row, x_ND in enumerate(self.seen_TBND[tick]):
            self.plain.write(row, x_ND, tick)
        return torch.stack(read)


def paper_bank(tokens: int, width: int) -> Bank:
    """One stream as published, its gates and norms not as they begin."""
    bank = Bank((tokens,), width, CAPACITY, time="index", merge="plain", form="paper", blocks=2, heads=1)
    for gate in bank.read_by[0].gate.parameters():
        torch.nn.init.normal_(gate, std=0.05)
    return bank


def both(pairs: list[Pair], step: Callable[[Pair, int], Tensor]) -> Callable[[], None]:
    """A step of all streams, at the tick after the compared ones."""

    def call() -> None:
        for pair in pairs:
            step(pair, BEFORE + COMPARED)

    return call
