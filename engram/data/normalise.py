"""Bring numbers of any unit to a common scale, and back."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

ACTION_FLOOR = 0.1  # least standard deviation of an action dimension, in the environment's units ([-1, 1])


class Normaliser(nn.Module):
    """(x - mean) / std per dimension; mean and std are buffers, so that a checkpoint carries them.

    The standard deviation has a floor. A dimension that hardly moves in the demonstrations (a gripper that stays
    open, a hand that stays level) has a standard deviation near zero: divided by it, a deviation at test time too
    small to see becomes an input of hundreds, and a constant dimension becomes 0/0. With the floor a constant
    dimension maps to 0 and comes back exactly.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Float[Tensor, "D"], std: Float[Tensor, "D"]):
        super().__init__()
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
            raise ValueError(f"expected a finite mean and std > 0, found {mean} and {std}; use Normaliser.fit")
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())

    @classmethod
    def fit(cls, values: Float[Tensor, "F D"], floor: float = 0.01) -> "Normaliser":
        """From all rows of `values`; `floor` > 0 is in the unit of the values (metres, radians)."""
        if not floor > 0 or not len(values):
            raise ValueError(f"expected floor > 0 and rows, found {floor} and {tuple(values.shape)}; give both")
        exact = values.double()
        return cls(exact.mean(0).float(), exact.std(0, unbiased=False).clamp(min=floor).float())

    def forward(self, x: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """Normalised values."""
        return (x - self.mean) / self.std

    def inverse(self, x: Float[Tensor, "*lead D"]) -> Float[Tensor, "*lead D"]:
        """Values in their own unit."""
        return x * self.std + self.mean
