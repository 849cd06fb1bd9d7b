"""How long a folder took to make, over all sittings: work that is stopped and goes on has no single start."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engram.files import replace_text

FILE = "wall_seconds.json"


@contextmanager
def timed(folder: Path) -> Iterator[None]:
    """Adds the wall time spent in here to what earlier sittings spent on `folder`, also when an error ends it."""
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    try:
        yield
    finally:
        replace_text(folder / FILE, json.dumps(spent(folder) + time.perf_counter() - began) + "\n")


def spent(folder: Path) -> float:
    """Wall time in seconds over all sittings that made `folder`, but for stages that a kill cut short."""
    file = folder / FILE
    return json.loads(file.read_text()) if file.exists() else 0.0
