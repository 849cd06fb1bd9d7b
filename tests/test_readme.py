"""The README tells the truth: its Python runs, its commands exist, its tree is the tree."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", PYTHON, ids=[f"block{i}" for i in range(len(PYTHON))])
def test_python_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})


def test_begins_with_two_commands():
    block = re.search(r"^```\w*\n(.*?)^```", README, re.MULTILINE | re.DOTALL).group(1)
    commands = [line.split("#")[0].strip() for line in block.splitlines() if line.strip()]
    assert commands == ["make quickstart", "make test"]


def test_tree_exists():
    tree = README.split("<!-- tree -->")[1]
    paths = re.findall(r"^(?:    )?([\w./-]+)  ", tree, re.MULTILINE)
    assert paths
    missing = [path for path in paths if not ((ROOT / path).exists() or (ROOT / "engram" / path).exists())]
    assert missing == []


def test_pictures_exist():
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)
    assert [path for path in pictures if not (ROOT / path).exists()] == []
