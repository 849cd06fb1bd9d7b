"""Files that are replaced whole or not at all, and what a run is called by where it lies."""

import os
from pathlib import Path


def run_name(checkpoint: Path) -> str:
    """What a policy on disk is called: the name of its run, RUN/checkpoint, or of its own folder."""
    whole = checkpoint.resolve()
    return whole.parent.name if whole.name == "checkpoint" else whole.name


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: a full disk or a kill leaves the previous one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
