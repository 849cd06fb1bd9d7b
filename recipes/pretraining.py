"""What the pretraining recipes share: where they compute, keeping their state, reading questions, writing weights."""

import hashlib
import json
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from engram import device, provenance
from engram.backbones.tiny import Tiny

CONSOLE = Console(stderr=True)


def found_device() -> torch.device:
    """The GPU where there is one, else the CPU; products of a GPU in TF32 from now on."""
    torch.set_float32_matmul_precision("high")
    return device.found("auto")


def forward(backbone: Tiny, seen: Tensor, proprio: Tensor, texts: list[str], full: bool) -> Tensor:
    """Hidden states of the questions (row-major: frame, question) about frames seen, under either context mask."""
    questions = len(texts) // len(seen)
    slots = backbone.question.expand(len(texts), -1, -1)
    if full:
        scene = backbone.embed(seen, proprio).repeat_interleave(questions, 0)
        return backbone.think(scene, *backbone.text(texts), slots)[0][:, 0]
    scene = backbone.scene_keys(seen, proprio).repeat_interleave(questions, 0)
    text, text_ok = backbone.text_keys(texts)
    ok = F.pad(text_ok, (scene.shape[3], 0), value=True)
    return backbone.ask(slots, torch.cat([scene, text], 3), ok)[0][:, 0]


def keep(out: Path, step: int, backbone: Tiny, answers: nn.Module, optimizer) -> None:
    """Write the state after so many updates, whole or not at all."""
    parts = {"backbone": backbone, "answers": answers, "optimizer": optimizer}
    torch.save({name: part.state_dict() for name, part in parts.items()} | {"step": step}, out / "state.new")
    (out / "state.new").rename(out / "state.pt")


def kept(out: Path) -> dict:
    """The state that `keep` wrote."""
    return torch.load(out / "state.pt", map_location="cpu", weights_only=True)


def resume(out: Path, backbone: Tiny, answers: nn.Module, optimizer) -> int:
    """The update to go on from."""
    if not (out / "state.pt").exists():
        return 0
    state = kept(out)
    for name, part in {"backbone": backbone, "answers": answers, "optimizer": optimizer}.items():
        part.load_state_dict(state[name])
    return state["step"]


def publish(path: Path, backbone: Tiny, about: dict) -> None:
    """Weights in bf16 at `path` and, beside them, what they are: `about`, commit, versions, checksum."""
    save_file({name: value.to(torch.bfloat16).contiguous() for name, value in backbone.state_dict().items()}, path)
    made = {"commit": provenance.commit(), "versions": provenance.versions()}
    checksum = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps({**about, **made, **checksum}, indent=1) + "\n")
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
