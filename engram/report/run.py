"""A finished run as it lies on disk, read once and checked before anything is drawn.

RUN/summary.json                      what `engram quickstart` measured; without it, what the other files say
RUN/config.json                       what a training was asked for, and by which code it was done
RUN/metrics.jsonl                     training: {"step", "loss", ...} a line
RUN/POLICY/metrics.jsonl              likewise, of several policies
RUN/eval/*.jsonl                      evaluation: one episode a line; *.settings.json beside it
RUN/eval/NAME.video/SEED.mp4          films of the episodes in NAME.jsonl
RUN/eval/NAME.video/attention-*.mp4   overlays of where memory and action tokens look
RUN/videos/attention-*.mp4            likewise
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engram.report.checked import NUMBER, Json, Kinds, lines, parse, require, wrong
from engram.report.evaluations import EpisodeKey, evaluations, filmed, grouped, looks
from engram.report.gather import gather

TICK_SECONDS = 0.05  # a film has one frame per control tick, 20 a second

METRICS: Kinds = {"step": NUMBER}
OPTIONAL: Kinds = {
    "interventions": dict, "visible": dict, "delay_curve": list, "trained_delay": list, "paired": dict,
    "wall_seconds": NUMBER, "commit": str, "chance": NUMBER, "chance_measured": dict, "training": dict,
    "configuration": dict,
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Everything the report draws from. Parts that the run did not make are empty.

    videos     {"policy", "seed", "success", "choice", "answer", "path" of its film}
    attention  {"policy", "task", "seed", "path" of its film}
    """

    path: Path
    summary: Json
    metrics: dict[str, list[Json]]
    episodes: dict[EpisodeKey, list[Json]]
    videos: list[Json]
    attention: list[Json]

    @property
    def name(self) -> str:
        """What to call the run: its task, or its folder where nothing was evaluated."""
        return self.task or self.path.resolve().name

    @property
    def task(self) -> str:
        """The task that the page speaks of; "" where nothing was evaluated."""
        return self.summary["task"]

    @property
    def policies(self) -> dict[str, Json]:
        """Policy name -> its evaluation summary on `task`, in the order of the file."""
        return self.summary["policies"]

    @property
    def intervened(self) -> str:
        """The policy whose memory was tampered with."""
        return self.summary.get("intervened") or "mu_vla"

    @property
    def chance(self) -> float | None:
        """Measured success of the expert blind to the cue, or None where the run did not measure it."""
        return self.summary.get("chance")

    def onset(self, seed: int) -> float | None:
        """When the choice begins in the main task's episode `seed`, in seconds; None if it was not evaluated."""
        for (task, _, _), episodes in self.episodes.items():
            for episode in episodes:
                if task == self.task and episode["seed"] == seed and episode.get("onset") is not None:
                    return TICK_SECONDS * episode["onset"]
        return None


def read(path: Path) -> Run:
    """Read a run directory; ValueError where a file is not what the report needs, or none is there."""
    file, found, metrics = path / "summary.json", evaluations(path / "eval"), _metrics(path)
    summary = _summary(file) if file.is_file() else gather(path, found, metrics)
    return Run(
        path=path,
        summary=summary,
        metrics=metrics,
        episodes=grouped(found),
        videos=filmed(found, summary["task"]),
        attention=[_look(file) for file in sorted((path / "videos").glob("attention-*.mp4"))] + looks(found),
    )


def _metrics(path: Path) -> dict[str, list[Json]]:
    """Policy, named after the folder it was trained in -> its lines."""
    files = [path / "metrics.jsonl", *sorted(path.glob("*/metrics.jsonl"))]
    return {file.resolve().parent.name: list(lines(file, METRICS)) for file in files if file.is_file()}


def _look(file: Path) -> Json:
    """What the name of RUN/videos/attention-POLICY-SEED.mp4 says."""
    policy, seed = re.findall(r"^attention-(.*?)(?:-(\d+))?$", file.stem)[0]
    return {"policy": policy, "task": "", "seed": seed, "path": file}


def _summary(file: Path) -> Json:
    where, summary = str(file), parse(file.read_text(encoding="utf-8"), str(file))
    if "suite" in summary:
        page = file.with_name("report.html")
        raise ValueError(f"{where}: expected the summary of a run, found a suite's, whose page is there: open {page}")
    require(where, summary, {"task": str, "policies": dict})
    if not summary["policies"]:
        raise wrong(where, '"policies" to map at least one name to its result', {})
    require(where, summary, {key: kind for key, kind in OPTIONAL.items() if summary.get(key) is not None})
    _check_chance(where, summary)
    results: Json = {}
    for key in ("policies", "interventions", "visible"):
        results |= {f'"{key}.{name}"': result for name, result in (summary.get(key) or {}).items()}
    for name, result in results.items():
        _check_rate(where, name, result)
    for point in summary.get("delay_curve") or []:
        _check_rate(where, '"delay_curve" point', point)
        require(f'{where}: "delay_curve"', point, {"policy": str, "delay": int})
    designs = (summary.get("configuration") or {}).get("designs") or {}
    require(f'{where}: "configuration.designs"', designs, dict.fromkeys(designs, dict))
    if summary.get("paired"):
        require(f'{where}: "paired"', summary["paired"], {"a": str, "b": str, "p_value": NUMBER})
    return summary


def _check_chance(where: str, summary: Json) -> None:
    rate, measured = summary.get("chance"), summary.get("chance_measured")
    if rate is not None and not 0 <= rate <= 1:
        raise wrong(where, '"chance" to be in [0, 1]', rate)
    if measured is not None:
        _check_rate(where, '"chance_measured"', measured)


def _check_rate(where: str, name: str, result: Any) -> None:
    rate = result.get("success") if isinstance(result, dict) else None
    if not isinstance(rate, int | float) or not 0 <= rate <= 1:
        raise wrong(where, f'{name} to hold "success" in [0, 1]', result)
