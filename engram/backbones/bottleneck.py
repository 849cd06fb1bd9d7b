"""Vision tokens squeezed into perceptual tokens: MemoryVLA's SE-bottleneck (arXiv 2508.19236, 3.1; squeeze and
excitation: arXiv 1709.01507). Channels are compressed, places are not.

Legend: B rows, N tokens of a view, C channels.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

SQUEEZE = 16  # how many times narrower a view's summary is than its tokens


class Bottleneck(nn.Module):
    """Tokens of `width` channels to ones of `out`: up, gated by a summary of their view, down; scaled to unit size.

    views  tokens of each view; every view has a summary of its own. ValueError if there is none, or an empty one.

    The scaling is ours: what goes to a memory should be of one scale, whatever the backbone.
    """

    def __init__(self, views: Sequence[int], width: int, out: int):
        super().__init__()
        if not views or min(views) < 1:
            raise ValueError(f"views: expected one or more, of at least 1 token, found {tuple(views)}; give some")
        self.views, wide = tuple(views), 2 * out
        self.up, self.down = nn.Linear(width, wide, bias=False), nn.Linear(wide, out, bias=False)
        narrow = max(8, wide // SQUEEZE)
        self.gate = nn.Sequential(nn.Linear(wide, narrow), nn.ReLU(), nn.Linear(narrow, wide), nn.Sigmoid())
        self.norm = nn.LayerNorm(out)

    def extra_repr(self) -> str:
        """What the tensors of a bottleneck do not show."""
        return f"views={self.views}"

    def forward(self, x_BNC: Float[Tensor, "B N C"]) -> Float[Tensor, "B N D"]:
        """Perceptual tokens at the places of the vision tokens, all views in a row."""
        wide = [self._gated(view) for view in self.up(x_BNC).relu().split(self.views, 1)]
        return self.norm(self.down(torch.cat(wide, 1)))

    def _gated(self, x_BNC: Tensor) -> Tensor:
        return x_BNC * self.gate(x_BNC.mean(1, keepdim=True))
