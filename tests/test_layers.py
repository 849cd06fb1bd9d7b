"""Imports point down: a module imports only from rooms of a lower level, or from its own."""

import ast
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import engram

# Rooms of one level never import one another. The programs, all "level 4" in the design, are four steps here: the
# stages of the work, trainings side by side, what runs several stages, and the command line in front of everything.
ROOMS = (
    ("__init__", "types", "carry", "device", "draws", "tensors", "words", "stats", "files", "provenance", "settings"),
    ("backbones", "memory", "world", "experts", "skills", "data", "envs"),
    ("policies",),
    ("session",),
    ("train", "train_world", "rollout", "demos", "report", "serve"),
    ("crew", "walltime"),
    ("study", "suite", "quickstart", "bench"),
    ("cli", "__main__"),
)
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
OUTSIDE = ("recipes", "benchmarks", "tests", "scripts")  # may import engram; nothing in engram imports them


def imported(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of every import, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def upward(root: Path) -> list[str]:
    """Every import in the package at `root` that does not point down, as one readable line each."""
    wrong = []
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root).with_suffix("")
        room, package = inside.parts[0], ".".join(("engram", *inside.parts[:-1]))
        for line, name in imported(ast.parse(path.read_text(encoding="utf-8")), package):
            top, other = [*name.split("."), ""][:2]
            inner = top == "engram" and other in LEVEL and other != room
            if top in OUTSIDE or (inner and LEVEL[other] >= LEVEL[room]):
                wrong.append(f"{inside}.py:{line} ({room}) imports {name}")
    return wrong


def test_every_room_has_a_level():
    rooms = {path.stem for path in Path(engram.__file__).parent.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert rooms - {"__pycache__"} <= set(LEVEL)


def test_imports_point_down():
    assert upward(Path(engram.__file__).parent) == []


def test_planted_upward_imports_are_found(tmp_path):
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "bank.py").write_text(
        "from engram.memory.base import Memory\n"
        "from engram.carry import Carry\n"
        "from engram.experts import regression\n"
        "from .. import policies\n"
        "def late():\n    import engram.session\n"
        "import recipes.k_sweep\n"
    )
    assert [line.split(" (")[0] for line in upward(tmp_path)] == [f"memory/bank.py:{n}" for n in (3, 4, 7, 6)]
