"""Where tensors are computed: on the GPU where there is one, unless told otherwise."""

from typing import Literal

import torch

Name = Literal["auto", "cpu", "cuda"]
SHARE = 0.7  # of the GPU's free memory that features may take


def found(name: Name) -> torch.device:
    """The device of that name; auto: the GPU if this machine and this build of PyTorch have one.

    ValueError for a GPU that is not there.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ValueError("device: expected a GPU for 'cuda', found none that PyTorch can use; choose 'auto' or 'cpu'")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def holds(device: torch.device, size: int) -> bool:
    """Whether so many bytes that stay for long fit onto a GPU, with room for work beside them; onto a CPU always."""
    return device.type == "cpu" or size < SHARE * torch.cuda.mem_get_info(device)[0]
