"""Frames kept as they were seen: the first of the episode, or the last few. The references that any memory must beat.

Legend: B rows, N tokens of a frame, F frames kept, D width.
"""

import torch
from torch import Tensor

from engram import carry as carries
from engram.carry import Carry
from engram.memory.base import Memory


class FirstFrame(Memory):
    """Keeps the first frame that a row writes; empty before."""

    empty: Tensor

    def __init__(self, tokens: int, width: int):
        super().__init__()
        self.register_buffer("empty", torch.zeros(tokens, width), persistent=False)

    def init(self, batch: int) -> Carry:
        written_B = torch.zeros(batch, dtype=torch.bool, device=self.empty.device)
        return {"memory/frame": self.empty.expand(batch, -1, -1), "memory/written": written_B}

    def write(self, carry: Carry, x_BND: Tensor, tick_B: Tensor, mask_B: Tensor) -> Carry:
        new = {"memory/frame": x_BND, "memory/written": torch.ones_like(mask_B)}
        return carries.where(mask_B & ~carry["memory/written"], new, carry)

    def read(self, carry: Carry, query_BND: Tensor, tick_B: Tensor) -> tuple[Tensor, Tensor]:
        tokens = carry["memory/frame"]
        return tokens, carry["memory/written"].unsqueeze(1).expand(tokens.shape[:2])


class LastFrames(Memory):
    """Keeps the last `frames` frames written, oldest first; not yet written ones are invalid."""

    empty: Tensor

    def __init__(self, frames: int, tokens: int, width: int):
        super().__init__()
        if frames < 1:
            raise ValueError(f"frames kept: expected at least 1, found {frames}")
        self.register_buffer("empty", torch.zeros(frames, tokens, width), persistent=False)

    def init(self, batch: int) -> Carry:
        frames = self.empty.shape[0]
        written_BF = torch.zeros(batch, frames, dtype=torch.bool, device=self.empty.device)
        return {"memory/frames": self.empty.expand(batch, -1, -1, -1), "memory/written": written_BF}

    def write(self, carry: Carry, x_BND: Tensor, tick_B: Tensor, mask_B: Tensor) -> Carry:
        frames, written = carry["memory/frames"], carry["memory/written"]
        new = {
            "memory/frames": torch.cat([frames[:, 1:], x_BND.unsqueeze(1)], 1),
            "memory/written": torch.cat([written[:, 1:], torch.ones_like(written[:, :1])], 1),
        }
        return carries.where(mask_B, new, carry)

    def read(self, carry: Carry, query_BND: Tensor, tick_B: Tensor) -> tuple[Tensor, Tensor]:
        frames = carry["memory/frames"]
        ok = carry["memory/written"].unsqueeze(-1).expand(frames.shape[:3])
        return frames.flatten(1, 2), ok.flatten(1)
