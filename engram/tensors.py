"""Tensors by name on disk: read whole, and copied into a module strictly."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, by name. ValueError if it is missing, cut short or something else."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: expected readable safetensors, found: {error}; use another checkpoint") from error


def fill(module: nn.Module, found: dict[str, Tensor], folder: Path) -> None:
    """Copy tensors of `folder` by name. ValueError for one that is missing, unknown or of another shape or dtype."""
    wanted = module.state_dict()
    for name in sorted(wanted.keys() | found.keys()):
        expected, got = (_kind(tensors.get(name)) for tensors in (wanted, found))
        if expected != got:
            raise ValueError(
                f"{folder}: tensor {name}: expected {expected}, found {got}; "
                "config.json and weights do not belong together, or another version of Engram wrote them; "
                "use another checkpoint"
            )
    module.load_state_dict(found)


def _kind(tensor: Tensor | None) -> str:
    return "none" if tensor is None else f"shape {tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
