"""Networks in diffusers' layout: a folder (or a repository of the Hugging Face Hub) with unet/ and vae/ in it.

That of Stable Video Diffusion, of Video Prediction Policy's robot weights, and of what their tools write. The one
place that imports diffusers.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

try:
    from diffusers.models import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
except ImportError as missing:
    raise ImportError('engram/world needs diffusers; install it with: pip install "engram-vla[world]"') from missing

__all__ = ["AutoencoderKLTemporalDecoder", "UNetSpatioTemporalConditionModel", "found", "read", "settings"]

WEIGHTS = "diffusion_pytorch_model.safetensors"
PARTS = ("unet", "vae")
Model = TypeVar("Model", bound=nn.Module)


def found(name: Path | str) -> Path:
    """The folder of that name or, for an "OWNER/NAME" that is none here, what the Hub has under it (kept in its cache).

    ValueError for a name that is neither.
    """
    if Path(name).is_dir():
        return Path(name)
    do = "see that the name is right and the Hub within reach"
    wanted = f"{name}: expected a folder with unet/ and vae/ here or a repository of the Hugging Face Hub"
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(name)):
        raise ValueError(f"{wanted}, found neither; {do}")
    from huggingface_hub import snapshot_download  # not above: folders do without it, and it takes a while to load

    try:
        files = [f"{part}/{file}" for part in PARTS for file in ("config.json", WEIGHTS)]
        return Path(snapshot_download(str(name), allow_patterns=files))
    except OSError as error:
        first = str(error).partition("\n")[0]
        raise ValueError(f"{wanted}, found neither ({first}); {do}") from error


def read(kind: type[Model], folder: Path, part: str) -> Model:
    """The network in folder/part, float32. ValueError if a file is missing or its tensors are not those it has."""
    for file in ("config.json", WEIGHTS):
        if not (folder / part / file).is_file():
            do = "give a folder in diffusers' layout"
            raise ValueError(f"{folder}: expected {part}/{file}, found none; {do}")
    load: Callable[..., Any] = kind.from_pretrained  # type: ignore[attr-defined]
    try:
        network, report = load(folder, subfolder=part, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        do = "config.json and weights do not belong together, or a file is damaged"
        raise ValueError(f"{folder}/{part}: expected a {kind.__name__}, found: {error}; {do}") from error
    if odd := [name for kinds in ("missing_keys", "unexpected_keys") for name in report[kinds]]:
        do = "use the weights that belong to config.json"
        raise ValueError(f"{folder}/{part}: expected the tensors of its config.json, found others ({odd[0]}); {do}")
    return network.float()


def settings(network: Any) -> dict[str, Any]:
    """What a network is made with: the arguments of its class."""
    return {name: value for name, value in network.config.items() if not name.startswith("_")}
