"""A finished run as it lies on disk, read once and checked before anything is drawn.

RUN/summary.json                      required; what `engram quickstart` measured
RUN/POLICY/metrics.jsonl              training: {"step", "loss", ...} a line
RUN/eval/*.jsonl                      evaluation: one episode a line
RUN/eval/NAME.video/SEED.mp4          films of the episodes in NAME.jsonl
RUN/videos/attention-*.mp4            overlays of where memory and action tokens look
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]
TICK_SECONDS = 0.05  # a film has one frame per control tick, 20 a second
EpisodeKey = tuple[str, str, str]  # task, policy, intervention ("none" where memory is left alone)

Kinds = dict[str, type | tuple[type, ...]]
NUMBER = (int, float)
NAMES = {
    str: "a string", int: "a whole number", NUMBER: "a number", bool: "true or false", dict: "an object",
    list: "a list", object: "there",
}  # fmt: skip
METRICS: Kinds = {"step": NUMBER}
EPISODE: Kinds = {"task": str, "policy": str, "seed": int, "ticks": object, "success": object}  # null after an error
OPTIONAL: Kinds = {
    "interventions": dict, "visible": dict, "delay_curve": list, "trained_delay": list, "paired": dict,
    "wall_seconds": NUMBER, "commit": str,
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Everything the report draws from. Parts that the run did not make are empty.

    videos    {"policy", "seed", "success", "choice", "answer", "path" of its film}
    """

    path: Path
    summary: Json
    metrics: dict[str, list[Json]]
    episodes: dict[EpisodeKey, list[Json]]
    videos: list[Json]
    attention: list[Path]

    @property
    def task(self) -> str:
        """Name of the task that the run trained for."""
        return self.summary["task"]

    @property
    def policies(self) -> dict[str, Json]:
        """Policy name -> its evaluation summary on `task`, in the order of the file."""
        return self.summary["policies"]

    @property
    def chance(self) -> float | None:
        """Measured success of the expert blind to the cue, or None where the run did not measure it."""
        return self.summary["chance"]["success"] if self.summary.get("chance") else None

    def onset(self, seed: int) -> float | None:
        """When the choice begins in the main task's episode `seed`, in seconds; None if it was not evaluated."""
        for (task, _, _), episodes in self.episodes.items():
            for episode in episodes:
                if task == self.task and episode["seed"] == seed and episode.get("onset") is not None:
                    return TICK_SECONDS * episode["onset"]
        return None


def read(path: Path) -> Run:
    """Read a run directory; ValueError where `summary.json` is absent or not what the report needs."""
    summary = _summary(path / "summary.json")
    return Run(
        path=path,
        summary=summary,
        metrics={file.parent.name: list(_lines(file, METRICS)) for file in sorted(path.glob("*/metrics.jsonl"))},
        episodes=_episodes(path / "eval"),
        videos=list(_filmed(path / "eval", summary["task"])),
        attention=sorted((path / "videos").glob("attention-*.mp4")),
    )


def _summary(file: Path) -> Json:
    if not file.is_file():
        raise ValueError(f"{file}: expected the summary of a finished run, found no such file; run `engram quickstart`")
    where, summary = str(file), _parse(file.read_text(), str(file))
    _require(where, summary, {"task": str, "policies": dict})
    if not summary["policies"]:
        raise _wrong(where, '"policies" to map at least one name to its result', {})
    _require(where, summary, {key: kind for key, kind in OPTIONAL.items() if summary.get(key) is not None})
    results = {'"chance"': summary["chance"]} if summary.get("chance") is not None else {}
    for key in ("policies", "interventions", "visible"):
        results |= {f'"{key}.{name}"': result for name, result in (summary.get(key) or {}).items()}
    for name, result in results.items():
        _check_rate(where, name, result)
    for point in summary.get("delay_curve") or []:
        _check_rate(where, '"delay_curve" point', point)
        _require(f'{where}: "delay_curve"', point, {"policy": str, "delay": int})
    if summary.get("paired"):
        _require(f'{where}: "paired"', summary["paired"], {"a": str, "b": str, "p_value": NUMBER})
    return summary


def _check_rate(where: str, name: str, result: Any) -> None:
    rate = result.get("success") if isinstance(result, dict) else None
    if not isinstance(rate, int | float) or not 0 <= rate <= 1:
        raise _wrong(where, f'{name} to hold "success" in [0, 1]', result)


def _require(where: str, found: Any, kinds: Kinds) -> None:
    """ValueError unless `found` is an object that holds every key of `kinds`, each of its kind."""
    if not isinstance(found, dict):
        raise _wrong(where, "a JSON object", found)
    for key, kind in kinds.items():
        if key not in found or not isinstance(found[key], kind):
            raise _wrong(where, f'"{key}" to be {NAMES[kind]}', found.get(key))


def _wrong(where: str, expected: str, found: Any) -> ValueError:
    return ValueError(f"{where}: expected {expected}, found {found!r:.120}; delete the file and make it again")


def _parse(text: str, where: str) -> Json:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: expected JSON, found {text!r:.60} ({error}); delete it and run again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected a JSON object, found {text!r:.60}; delete it and run again")
    return value


def _lines(file: Path, kinds: Kinds) -> Iterator[Json]:
    """The objects of a JSONL file. A last line without its newline is a write cut short by a kill: left out."""
    whole, _, _ = file.read_text().rpartition("\n")
    for number, line in enumerate(whole.splitlines(), start=1):
        if line.strip():
            found = _parse(line, f"{file}:{number}")
            _require(f"{file}:{number}", found, kinds)
            yield found


def _episodes(folder: Path) -> dict[EpisodeKey, list[Json]]:
    found: dict[EpisodeKey, list[Json]] = {}
    for file in sorted(folder.glob("*.jsonl")):
        for episode in _lines(file, EPISODE):
            key = (episode["task"], episode["policy"], episode.get("intervention") or "none")
            found.setdefault(key, []).append(episode)
    return found


def _filmed(folder: Path, task: str) -> Iterator[Json]:
    """The films that evaluation left beside its episodes, of the main task with memory left alone."""
    for file in sorted(folder.glob("*.jsonl")):
        films = file.with_suffix(".video")
        for episode in _lines(file, EPISODE) if films.is_dir() else ():
            film = films / f"{episode['seed']}.mp4"
            if episode["task"] == task and not episode.get("intervention") and film.is_file():
                yield {key: episode.get(key) for key in ("policy", "seed", "success", "choice", "answer")} | {
                    "path": film
                }
