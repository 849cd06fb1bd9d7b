"""World models on disk: what stage 1 leaves and a policy starts from. config.json, model.safetensors, and tokenizer/
where the text encoder has one. Strict: nothing missing, nothing foreign.
"""

import json
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_file

from engram.tensors import fill, read_tensors
from engram.world.latents import Patches, Vae
from engram.world.model import Outlook, World
from engram.world.published import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel, settings
from engram.world.text import Clip, Words, empty_clip

FORMAT = 1


def about(world: World) -> dict:
    """All but the weights and the tokenizer: what `build` makes a world model of the same shape from."""
    codec, text = world.codec, world.text
    return {
        "outlook": asdict(world.outlook),
        "sigma_max": world.sigma_max,
        "unet": settings(world.unet),
        "codec": {"kind": "patches" if isinstance(codec, Patches) else "vae", **codec.about()},
        "text": {"kind": "words" if isinstance(text, Words) else "clip", **text.about()},
    }


def build(about: dict, folder: Path) -> World:
    """A world model of that shape with weights that say nothing; a tokenizer is read from `folder`.

    ValueError if the description is not one of `about`'s.
    """
    do = "the file was changed, or another version of Engram or diffusers wrote it: use another checkpoint"
    try:
        codec, text = dict(about["codec"]), dict(about["text"])
        patches, words = codec.pop("kind") == "patches", text.pop("kind") == "words"
        outlook = Outlook(**about["outlook"] | {"blocks": tuple(about["outlook"]["blocks"])})
        unet = UNetSpatioTemporalConditionModel(**about["unet"])
        made_codec = (
            Patches(**codec) if patches else Vae(AutoencoderKLTemporalDecoder(**codec["config"]), codec["zoom"])
        )
        made_text = Words(**text) if words else empty_clip(text, folder / "tokenizer")
        return World(unet, made_codec, made_text, outlook, about["sigma_max"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder}: expected the settings of a world model, found: {error}; {do}") from error


def write(world: World, folder: Path) -> None:
    """Write a world model into an existing folder."""
    save_file({name: value.contiguous() for name, value in world.state_dict().items()}, folder / "model.safetensors")
    if isinstance(world.text, Clip):
        world.text.tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "config.json").write_text(json.dumps({"format": FORMAT, "world": about(world)}, indent=1) + "\n")


def load(folder: Path | str, joint: bool = False) -> World:
    """The world model in `folder`, frozen unless it is to learn with the policy (`joint`).

    ValueError naming what is missing, foreign or mis-shaped.
    """
    folder = Path(folder)
    world = build(_config(folder), folder)
    fill(world, read_tensors(folder / "model.safetensors"), folder)
    return world.eval().learn(joint)


def _config(folder: Path) -> dict:
    path = folder / "config.json"
    if not path.is_file():
        do = "train one first (engram train-world) and give its OUT/checkpoint"
        raise ValueError(f"{folder}: expected a world model after stage 1 (config.json), found none; {do}")
    try:
        config = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: expected JSON, found {error}; the file is damaged, use another checkpoint"
        ) from error
    ours = isinstance(config, dict) and config.get("format") == FORMAT and isinstance(config.get("world"), dict)
    if not ours:
        found = "a file of something else"
        raise ValueError(f"{path}: expected a world model of format {FORMAT}, found {found}; give a stage-1 checkpoint")
    return config["world"]
