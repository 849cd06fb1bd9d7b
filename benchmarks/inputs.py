"""What the rows measure on: policies of a design with seeded random weights, and random frames."""

import torch
from torch import Tensor

from engram.backbones.tiny import Tiny
from engram.data.normalise import Normaliser
from engram.policies.build import Design, build
from engram.policies.through import Through
from engram.types import Observation, Spec, Window

TEXTS = ("touch the cube in the colour that was shown", "press the red button", "wait")  # 9, 4 and 1 words


def spec(cameras: int) -> Spec:
    """The tabletop's, with any number of cameras."""
    return Spec(tuple(f"camera{i}" for i in range(cameras)), 64, 64, 7, 7, 20.0)


def policy(design: Design, cameras: int, backbone: Tiny | None = None) -> Through:
    """A policy of the order "through" with random weights, the same at every call."""
    torch.manual_seed(0)
    made = build(design, spec(cameras), Normaliser(torch.zeros(7), torch.ones(7)), backbone)
    assert isinstance(made, Through)
    return made.eval()


def ticks(cameras: int, rows: int, length: int) -> Observation:
    """A window of random frames (B, T, ...) with instructions of several lengths."""
    random = torch.Generator().manual_seed(1)
    tick = torch.arange(length).expand(rows, -1)
    return Observation(
        images=torch.randint(0, 256, (rows, length, cameras, 64, 64, 3), generator=random, dtype=torch.uint8),
        proprio=torch.randn(rows, length, 7, generator=random),
        instruction=tuple(TEXTS[b % len(TEXTS)] for b in range(rows) for _ in range(length)),
        tick=tick,
        capture_tick=tick,
        action=torch.zeros(rows, length, 7),
    )


def window(cameras: int, rows: int, length: int, chunk: int) -> Window:
    """A training window in which the last row starts an episode half-way and the first row ends one tick early."""
    random = torch.Generator().manual_seed(2)
    first, valid = torch.zeros(rows, length, dtype=torch.bool), torch.ones(rows, length, dtype=torch.bool)
    first[:, 0] = first[-1, length // 2] = True
    valid[0, -1] = False
    ok = torch.rand(rows, length, chunk, generator=random) < 0.9
    target: Tensor = torch.randn(rows, length, chunk, 7, generator=random)
    frame = torch.arange(rows * length).view(rows, length)
    return Window(ticks(cameras, rows, length), target, ok, first, valid, frame)
