"""P3: training MemoryVLA's bank on groups of 16 frames, a batch of 32 (two groups), forward and backward.

Ours finds where every entry lies without gradients, projects each once and reads at all ticks at once (engram/memory/
history.py). The reference (plain_bank.py) goes through the frames one by one, as the released code does. Equal before
anything is timed: what is read, and all gradients.

Legend: B groups, T frames of a group, N tokens, D width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.p2 import CAPACITY, paper_bank
from benchmarks.plain_bank import PlainBank, play
from engram.bench import Bar, alternate, assert_equal, result
from engram.memory.bank import Bank

TITLE = "bank training, 2 groups of 16 frames: time of the loop over ours"
AGAINST = ()
BAR = Bar("more", 3.0)
GROUPS, FRAMES = 2, 16
STREAMS = {"perceptual": (256, 256), "cognitive": (1, 1536)}  # released with 4096, which takes minutes

Run = Callable[[Bank, Tensor], Tensor]


def measure(seconds: float = 20.0) -> dict:
    """The JSON of the row."""
    torch.manual_seed(0)
    banks = [paper_bank(*shape) for shape in STREAMS.values()]
    seen = [torch.randn(GROUPS, FRAMES, *shape) for shape in STREAMS.values()]
    for bank, x_BTND in zip(banks, seen, strict=True):
        require_equal(bank, x_BTND)
    ratio = alternate(training(banks, seen, plain), training(banks, seen, ours), seconds)
    shapes = {"groups": GROUPS, "frames": FRAMES, "capacity": CAPACITY, "streams": STREAMS}
    return result(TITLE, BAR, ratio, shapes=shapes)


def ours(bank: Bank, x_BTND: Tensor) -> Tensor:
    """All frames at once."""
    return bank.window(bank.init(len(x_BTND)), x_BTND, *when(x_BTND))[0]


def plain(bank: Bank, x_BTND: Tensor) -> Tensor:
    """Frame by frame."""
    return play(PlainBank(bank), x_BTND, *when(x_BTND))


def when(x_BTND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ticks, where groups begin, and that every frame is written."""
    tick_BT = torch.arange(FRAMES).expand(len(x_BTND), -1)
    return tick_BT, tick_BT == 0, torch.ones_like(tick_BT, dtype=torch.bool)


def training(banks: list[Bank], seen: list[Tensor], run: Run) -> Callable[[], None]:
    """Gradients of the mean square of what was read, of all streams."""

    def step() -> None:
        for bank, x_BTND in zip(banks, seen, strict=True):
            bank.zero_grad(set_to_none=True)
            run(bank, x_BTND).square().mean().backward()

    return step


def require_equal(bank: Bank, x_BTND: Tensor) -> None:
    """AssertionError unless both read the same and have the same gradients.

    Gradients to 1e-4 of their largest entry, long sums that they are, or of a thousandth of the largest of all: what
    moves all keys alike (the time code's last bias) has a gradient of nothing but rounding.
    """
    found = []
    for run in (ours, plain):
        bank.zero_grad(set_to_none=True)
        leaf = x_BTND.clone().requires_grad_()
        read = run(bank, leaf)
        (read * x_BTND.flip(1)).sum().backward()
        weights = [weight.grad for weight in bank.parameters() if weight.grad is not None]
        found.append((read.detach(), [leaf.grad, *weights]))
    (read, grads), (expected, references) = found
    assert_equal("read", read, expected)
    floor = 1e-3 * max(reference.abs().max() for reference in references).reshape(1)
    for i, (grad, reference) in enumerate(zip(grads, references, strict=True)):
        assert_equal(f"gradient {i}", *(torch.cat([x.flatten(), floor]) for x in (grad, reference)), 1e-4)
