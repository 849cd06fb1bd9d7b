"""The weights that ship: those that their provenance names, small, and whole."""

import hashlib
import json

import torch
from safetensors.torch import load_file

from engram.backbones.tiny import PACKAGED, pretrained


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
