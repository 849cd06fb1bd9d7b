"""An exponential average of the weights that learn: what is saved as the policy, if a training asks for it.

From one update to the next a cloned behaviour swings between success and failure in closed loop, while its loss hardly
moves; the average of its weights does not (arXiv 2310.11428).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

RAMP = 10  # after n updates the average is over at most about n / RAMP of them, so that the beginning is soon forgotten


class Average:
    """Follows the weights of `policy` that learn.

    decay  of what was averaged, an update: 0.999 averages over about a thousand updates, at most a tenth of those done
    """

    def __init__(self, policy: nn.Module, decay: float):
        self.decay = decay
        self._of = {name: weight for name, weight in policy.named_parameters() if weight.requires_grad}
        self._mean = {name: weight.detach().clone() for name, weight in self._of.items()}

    @torch.no_grad()
    def follow(self, updates: int) -> None:
        """Take in the weights as they are after so many updates (1 or more)."""
        share = max(1 - self.decay, RAMP / (RAMP + updates))
        torch._foreach_lerp_(list(self._mean.values()), list(self._of.values()), share)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """In here the policy has the average instead of its own weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def tensors(self) -> dict[str, Tensor]:
        """The policy's own weights by name, for one who finds the average where these should be."""
        return {name: weight.detach().clone() for name, weight in self._of.items()}

    @torch.no_grad()
    def restore(self, own: Mapping[str, Tensor]) -> None:
        """The policy holds the average: keep that, and give its own weights back."""
        for name, weight in self._of.items():
            self._mean[name].copy_(weight)
            weight.copy_(own[name])

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self._of.items():
            mean = self._mean[name].clone()
            self._mean[name].copy_(weight)
            weight.copy_(mean)
