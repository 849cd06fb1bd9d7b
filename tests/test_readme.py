"""The README tells the truth: its Python runs, its commands exist, its tree is the tree."""

import re
from pathlib import Path

import pytest
import torch

from engram.backbones import tiny
from engram.data.normalise import Normaliser
from engram.policies.build import build
from engram.policies.checkpoint import save_pretrained
from engram.policies.design import Design
from engram.types import Spec

SPEC = Spec(tiny.CAMERAS, tiny.SIDE, tiny.SIDE, proprio_dim=7, action_dim=7, control_hz=20.0)
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", PYTHON, ids=[f"block{i}" for i in range(len(PYTHON))])
def test_python_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    design = Design()  # untrained, where the quickstart's is
    policy = build(design, SPEC, Normaliser(torch.zeros(7), torch.ones(7)), tiny.pretrained())
    save_pretrained(policy, design, "runs/quickstart/mu_vla/checkpoint")
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})


def test_begins_with_two_commands():
    block = re.search(r"^```\w*\n(.*?)^```", README, re.MULTILINE | re.DOTALL).group(1)
    commands = [line.split("#")[0].strip() for line in block.splitlines() if line.strip()]
    assert commands == ["make quickstart", "make test"]


def test_tree_shows_every_room():
    tree = README.split("<!-- tree -->")[1]
    listed = set(re.findall(r"^    ([\w.]+/?)  ", tree, re.MULTILINE))
    paths = [path for path in (ROOT / "engram").iterdir() if not path.name.startswith("_")]
    assert {f"{path.name}/" if path.is_dir() else path.name for path in paths} <= listed


def test_pictures_exist():
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)
    assert [path for path in pictures if not (ROOT / path).exists()] == []
