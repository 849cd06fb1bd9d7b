"""The contract of a memory: what is stored, how it changes, how it is shown. Nothing else."""

import abc

from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from engram.carry import Carry


class Memory(nn.Module, abc.ABC):
    """A mechanism that keeps tokens of an episode in a carry. Legend: B rows, N written tokens, M read tokens, D width.

    The caller resets rows (`carry.where(first, memory.init(B), carry)`), runs the loop and owns the batch. A memory
    keeps no episode state on itself: rows are independent, and writing returns the keys, shapes and dtypes of `init`.
    """

    @abc.abstractmethod
    def init(self, batch: int) -> Carry:
        """What an episode starts with; pure, `memory/...` keys only."""

    @abc.abstractmethod
    def write(
        self, carry: Carry, x_BND: Float[Tensor, "B N D"], tick_B: Int64[Tensor, "B"], mask_B: Bool[Tensor, "B"]
    ) -> Carry:
        """The carry after the rows in `mask_B` have stored `x_BND` at control tick `tick_B`."""

    @abc.abstractmethod
    def read(
        self, carry: Carry, query_BND: Float[Tensor, "B Q D"], tick_B: Int64[Tensor, "B"]
    ) -> tuple[Float[Tensor, "B M D"], Bool[Tensor, "B M"]]:
        """Tokens and which of them are valid; M is fixed."""
