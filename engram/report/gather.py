"""The summary of a run that has none: what its evaluations and its training say, and nothing that was not measured.

`engram train` and `engram eval` leave RUN/metrics.jsonl, RUN/config.json and RUN/eval; `engram quickstart` sums up
itself.
"""

from collections import Counter
from pathlib import Path

from engram.report.checked import Json, parse
from engram.report.evaluations import EpisodeKey, Evaluation, grouped
from engram.stats import mean, wilson

THEIRS = "those of the training's last sitting: evaluations do not note their own"
Results = dict[EpisodeKey, Json]


def gather(path: Path, found: list[Evaluation], metrics: dict[str, list[Json]]) -> Json:
    """A summary as the report reads it from summary.json; its "task" is "" where nothing was evaluated.

    "intervened" is the policy that the interventions are of. ValueError for a folder that holds no run.
    """
    if not found and not any(metrics.values()):
        raise ValueError(
            f"{path}: expected a run (summary.json, eval/*.jsonl or metrics.jsonl), found none of these; "
            "run `engram eval` or `engram quickstart` first"
        )
    return (_measured(found) if found else {"task": "", "policies": {}}) | _trained(path)


def _measured(found: list[Evaluation]) -> Json:
    groups = grouped(found)
    results = {key: result for key, episodes in groups.items() if (result := _result(episodes))}
    main = _main(found, groups)
    seeds = [episode["seed"] for (task, _, _), episodes in groups.items() if task == main.task for episode in episodes]
    left_alone = {key[1]: result for key, result in sorted(results.items()) if key[::2] == (main.task, "none")}
    return {
        "task": main.task,
        "policies": left_alone,
        "delay_curve": _delay_curve(main, found, results),
        "seeds": {"evaluated": [min(seeds), max(seeds)]},
        **_interventions(main.task, results),
    }


def _main(found: list[Evaluation], groups: dict[EpisodeKey, list[Json]]) -> Evaluation:
    """One of the task with most episodes left alone; tasks as their names say come before those with knobs turned."""
    played, left_alone = Counter[str](), Counter[str]()
    for (task, _, kind), episodes in groups.items():
        played[task] += len(episodes)
        left_alone[task] += len(episodes) if kind == "none" else 0
    return max(found, key=lambda e: (e.plain and left_alone[e.task] > 0, left_alone[e.task], played[e.task]))


def _result(episodes: list[Json]) -> Json | None:
    """Success with its Wilson interval over the episodes that came to an end, and a swap's choice; None without any."""
    sound = [episode for episode in episodes if not episode.get("error")]
    if not sound:
        return None
    successes = sum(bool(episode["success"]) for episode in sound)
    swapped = [episode.get("choice") == episode["donor_answer"] for episode in sound if episode.get("donor_answer")]
    return {
        "episodes": len(sound),
        "successes": successes,
        "success": successes / len(sound),
        "ci95": list(wilson(successes, len(sound))),
        "donor_choice": mean(swapped),
    }


def _interventions(task: str, results: Results) -> Json:
    """Of the policy that had most of them: its name and what came of each."""
    found: dict[str, dict[str, Json]] = {}
    for (where, policy, kind), result in results.items():
        if where == task and kind != "none":
            found.setdefault(policy, {})[kind] = result
    if not found:
        return {}
    policy = max(found, key=lambda name: sum(result["episodes"] for result in found[name].values()))
    return {"intervened": policy, "interventions": found[policy]}


def _delay_curve(main: Evaluation, found: list[Evaluation], results: Results) -> list[Json]:
    """Of the main task with nothing but the delay turned, on seeds of the same use."""
    alike = [e for e in found if (e.settings["task"], e.use) == (main.settings["task"], main.use)]
    points = {e.key: e.delay for e in alike if e.delay is not None and e.key[2] == "none"}
    return [{"policy": key[1], "delay": at} | results[key] for key, at in points.items() if key in results]


def _trained(path: Path) -> Json:
    """What the training of this folder, if it is one, was asked for and done by."""
    file = path / "config.json"
    config = parse(file.read_text(encoding="utf-8"), str(file)) if file.is_file() else {}
    if not config.get("sittings"):
        return {}
    code = {key: config["sittings"][-1].get(key) for key in ("commit", "versions")}
    asked = {"configuration": {"designs": {path.resolve().name: config["design"]}}} if config.get("design") else {}
    return code | asked | {"notes": {"commit and versions": THEIRS}}
