"""Files that are replaced whole or not at all, and what a run is called by where it lies."""

import os
from pathlib import Path


def run_folder(checkpoint: Path) -> Path:
    """Where the results of a policy belong: its run, RUN/checkpoint; runs/NAME for one that lies elsewhere."""
    whole = checkpoint.resolve()
    return checkpoint.parent if whole.name == "checkpoint" else Path("runs") / whole.name


def run_name(checkpoint: Path) -> str:
    """What a policy on disk is called: the name of its run, or of its own folder."""
    return run_folder(checkpoint).resolve().name


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: a full disk or a kill leaves the previous one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
