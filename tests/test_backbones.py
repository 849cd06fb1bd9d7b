"""The weights that ship: those that their provenance names, small, and whole."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file

from engram.backbones.tiny import PACKAGED, SIZES, Tiny, pretrained


def test_shipped_weights_are_those_that_their_provenance_names():
    about = json.loads(PACKAGED.with_suffix(".json").read_text())
    assert hashlib.sha256(PACKAGED.read_bytes()).hexdigest() == about["sha256"]


def test_shipped_weights_are_small():
    assert PACKAGED.stat().st_size <= 4_000_000
    tensors = load_file(PACKAGED).values()
    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}
    assert sum(tensor.numel() for tensor in tensors) <= 2_000_000


def test_shipped_weights_are_what_pretrained_gives():
    found, kept = pretrained().state_dict(), load_file(PACKAGED)
    assert found.keys() == kept.keys()
    for name, value in kept.items():
        assert torch.equal(found[name], value.float()), name


@pytest.mark.parametrize(("side", "grid"), [(32, 4), (64, 4), (128, 8), (256, 8)])
def test_a_token_is_a_cell_of_the_picture(side, grid):
    backbone = Tiny(2, 7, **SIZES["s"], side=side)
    images = torch.randint(0, 256, (1, 2, side, side, 3), dtype=torch.uint8)
    seen = backbone.see(images)
    assert seen.shape == (1, 2 * grid**2, 128)
    images[0, 1, side // 2 :, : side // 4] = 0  # of the second camera, lower left
    moved = (backbone.see(images) - seen).abs().mean(-1)[0].unflatten(0, (2, grid, grid))
    assert moved[0].max() == 0
    assert moved[1, -1, 0] > moved[1, 0, -1]


def test_a_past_in_pieces_is_the_past_in_one():
    backbone = Tiny(1, 7, **SIZES["s"])
    scene, text = torch.randn(2, 3, 2, 17, 128).half(), torch.randn(2, 3, 2, 5, 128)
    slots, ok = torch.randn(2, 4, 128), torch.rand(2, 22) > 0.3
    pieces, whole = (backbone.ask(slots, past, ok) for past in ((scene, text), torch.cat([scene.float(), text], 3)))
    for ours, theirs in zip(pieces, whole, strict=True):
        assert torch.equal(ours, theirs)


def test_weights_that_are_not_there_are_named_with_their_recipe(tmp_path, monkeypatch):
    missing = tmp_path / "tiny_s_mikasa.safetensors"
    with pytest.raises(
        ValueError, match=r"tiny_s_mikasa.safetensors in the package, .*recipes/pretrain_notes.py --inst"
    ):
        pretrained(missing)
