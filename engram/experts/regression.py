"""Regression expert: each action slot's hidden state gives one action of the chunk (OpenVLA-OFT's parallel L1 head).

Legend: B rows, N actions of the chunk, A action, D width.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": lambda a, b: F.l1_loss(
        a, b, reduction="none"
    ),  # the paper's; waits long on the zero median of symmetric tasks
    "l2": lambda a, b: F.mse_loss(a, b, reduction="none"),
    "huber": lambda a, b: F.smooth_l1_loss(a, b, reduction="none", beta=0.5),
}


class Regression(nn.Module):
    """A pre-norm MLP per slot. Actions here are normalised; `loss` is one of "l1" (the paper), "l2", "huber"."""

    def __init__(self, width: int, action_dim: int, chunk: int, loss: str = "huber"):
        super().__init__()
        if loss not in LOSSES:
            raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, found {loss!r}")
        if chunk < 1:
            raise ValueError(f"chunk: expected at least 1 action, found {chunk}")
        self.loss_name = loss
        self.slots = nn.Parameter(0.02 * torch.randn(chunk, width))
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, action_dim)
        )

    def forward(self, hidden_BND: Float[Tensor, "B N D"]) -> Float[Tensor, "B N A"]:
        """Normalised actions."""
        return self.head(hidden_BND)

    def loss(
        self,
        hidden_BND: Float[Tensor, "B N D"],
        target_BNA: Float[Tensor, "B N A"],
        ok_BN: Bool[Tensor, "B N"],
        weight_B: Float[Tensor, "B"] | None = None,
    ) -> Tensor:
        """Mean loss over the actions with `ok` (padding beyond an episode's end does not count), each row's multiplied
        by its weight: rows of one window may weigh more or less than 1 in the mean."""
        each_BN = LOSSES[self.loss_name](self(hidden_BND), target_BNA).mean(-1)
        if weight_B is not None:
            each_BN = each_BN * weight_B[:, None]
        return (each_BN * ok_BN).sum() / ok_BN.sum().clamp(min=1)
