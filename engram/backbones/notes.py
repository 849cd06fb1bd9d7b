"""Notes: what a backbone was pretrained to keep of a frame in memory tokens, and to act on later (decision 0009).

A note slot enters as `slot` plus SCALE times its memory. Its hidden state, centred and scaled by `mean` and `spread`,
moves the memory by a gate that differs from channel to channel. recipes/pretrain_notes.py teaches that on single
frames; a policy whose memory begins with these values (`Through.begin_with`) need not find it in demonstrations.

Legend: D width.
"""

import torch
from torch import Tensor, nn

SCALE = 4.0  # how many times larger than kept a memory enters the backbone (Design.read_scale)
SLOWEST = 9.0  # about how many ticks the slowest channel of a memory holds at the start
SPREAD_FLOOR = 0.05


class Notes(nn.Module):
    """The slot that notes begin as, and the statistics of its hidden states over frames."""

    mean: Tensor
    spread: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.slot = nn.Parameter(torch.zeros(1, width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    @torch.no_grad()
    def follow(self, h_BMD: Tensor, rate: float) -> None:
        """Let the statistics follow a batch of hidden states."""
        self.mean = torch.lerp(self.mean, h_BMD.mean((0, 1)), rate)  # anew: gradients still need the old ones
        self.spread = torch.lerp(self.spread, h_BMD.std((0, 1)).clamp(min=SPREAD_FLOOR), rate)

    def standardised(self, h_BMD: Tensor) -> Tensor:
        """Hidden states as they are written to memory."""
        return (h_BMD - self.mean) / self.spread
