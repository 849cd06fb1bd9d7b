"""What a policy without memory can reach: the success of an expert that goes for a candidate at random."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from engram.files import replace_text

console = Console(stderr=True)


def chance(file: Path, task: str, episodes: int, seed0: int, **knobs: Any) -> dict:
    """Success of the blind expert on the seeds from `seed0` on, played unless `file` says what came of just these.

    Returns "episodes", "successes", "success" (their share) and its "ci95". ValueError for an unknown task or knob.
    """
    # Here and not above: it loads MuJoCo, which is optional and takes a second.
    from engram.envs.tabletop import audit

    asked = json.loads(json.dumps({"task": task, "episodes": episodes, "seed0": seed0, "knobs": knobs}))
    kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"of": None}
    if kept["of"] != asked:
        console.print(f"{task}: chance, {episodes} episodes of an expert that guesses", highlight=False)
        kept = {"of": asked, "result": audit.chance(task, episodes, seed0, **knobs)}
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_text(file, json.dumps(kept) + "\n")
    return kept["result"]
