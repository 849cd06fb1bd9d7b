"""A whole benchmark by its protocol: every task of every group, resumable episode by episode, one table, one page."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from engram import provenance, walltime
from engram.envs import MIKASA, mikasa
from engram.envs.unknown import unknown
from engram.files import replace_text
from engram.report import write_result, write_suite
from engram.rollout import EpisodeError, summarise
from engram.rollout.checkpoint import evaluate_checkpoint
from engram.rollout.records import read
from engram.stats import wilson

console = Console(stderr=True)
COUNTED = ("observations", "writes", "plans", "renders")
PROTOCOL = (
    "seeds 4242424242+i, success at any tick, CPU physics, mani_skill 3.0.1 and sapien 3.0.3 (the papers: GPU physics, "
    "3.0.0b15); unless strict, the wrist camera's housing is not drawn"
)


@dataclass(frozen=True)
class Suite:
    """What to play: groups of tasks by name, where tasks are as `engram.envs.make` knows them, and the first seed.

    published  task -> what a paper reports for it
    means      method of a paper -> group -> its mean
    protocol   what a reader of the table must know
    """

    name: str
    groups: Mapping[str, tuple[str, ...]]
    first_seed: int
    published: Mapping[str, float]
    means: Mapping[str, Mapping[str, float]]
    protocol: str

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task once, in the order of the groups."""
        return tuple(dict.fromkeys(task for group in self.groups.values() for task in group))


def mikasa_suite() -> Suite:
    """MIKASA-Robo-VLA: muVLA's 23 tasks in three groups, and the MemoryVLA papers' canonical five."""
    from engram.envs.mikasa import published

    groups = {**mikasa.GROUPS, "canonical": mikasa.CANONICAL}
    return Suite(
        "mikasa",
        {group: tuple(MIKASA + task for task in tasks) for group, tasks in groups.items()},
        mikasa.FIRST_SEED,
        {MIKASA + task: rate for task, rate in published.MU_VLA.items()},
        published.GROUP_MEANS,
        PROTOCOL,
    )


def run(
    suite: Suite,
    checkpoint: Path,
    out: Path,
    only: Sequence[str] = (),
    episodes: int = mikasa.EPISODES,
    workers: int = 2,
    videos: int = 0,
    **knobs: Any,
) -> dict:
    """Play what of the suite `out` does not hold yet; returns its summary (also out/summary.json, .md and report.html).

    Args:
        suite: what to play.
        checkpoint: a policy's folder.
        out: folder of the results; one policy and one setting each.
        only: names of groups or tasks; all by default.
        episodes: of each task.
        workers: simulator processes, one episode at a time each.
        videos: films of the first so many episodes of each task.
        knobs: settings of the environments.

    A task whose assets are missing is named in the summary and counts as nothing. ValueError for an unknown name or a
    folder of another policy; EpisodeError, after all else is done, if a simulator failed in some episodes.
    """
    tasks, seeds = _chosen(suite, only), range(suite.first_seed, suite.first_seed + episodes)
    provenance.settle(out, {"suite": suite.name, "knobs": knobs})
    results: dict[str, dict] = {}
    missing: dict[str, str] = {}
    broken: list[str] = []
    for number, task in enumerate(tasks, 1):
        console.rule(f"{suite.name} {number}/{len(tasks)}: {task}")
        file = out / "eval" / f"{task.replace('/', '-')}.jsonl"
        try:
            with walltime.timed(out):
                results[task] = evaluate_checkpoint(
                    checkpoint, task, seeds, file, lanes=workers, workers=workers, videos=videos, knobs=knobs
                )
        except mikasa.MissingAssetsError as error:
            missing[task] = str(error)
            console.print(str(error), style="yellow", soft_wrap=True)
        except EpisodeError as error:
            broken.append(f"{task}: {error}")
            results[task] = summarise([line for line in read(file) if line["seed"] in seeds])
        publish(out, summary(suite, checkpoint, out, results, missing, episodes, knobs), suite)
    if broken:
        raise EpisodeError("; ".join(broken))
    return summary(suite, checkpoint, out, results, missing, episodes, knobs)


def _chosen(suite: Suite, only: Sequence[str]) -> tuple[str, ...]:
    """The tasks of the groups and tasks named. ValueError for a name that is neither."""
    if not only:
        return suite.tasks
    names = {task.rpartition("/")[2]: task for task in suite.tasks}
    chosen: list[str] = []
    for name in only:
        if name not in suite.groups and name.rpartition("/")[2] not in names:
            raise ValueError(unknown(f"group or task of {suite.name}", name, [*suite.groups, *names]))
        chosen += suite.groups.get(name) or [names[name.rpartition("/")[2]]]
    return tuple(dict.fromkeys(chosen))


def summary(
    suite: Suite, checkpoint: Path, out: Path, results: dict, missing: dict, episodes: int, knobs: dict
) -> dict:
    """What is known so far: a row for each task played, the mean of each group, what is missing."""
    rows = [_row(suite, task, result) for task, result in results.items()]
    return {
        "suite": suite.name,
        "checkpoint": str(checkpoint),
        "protocol": suite.protocol,
        "episodes": episodes,
        "knobs": knobs,
        "tasks": rows,
        "groups": list(_groups(suite, results, missing)),
        "missing": missing,
        "counters": {key: sum(result["counters"][key] for result in results.values()) for key in COUNTED}
        | {"errors": sum(result["errors"] for result in results.values())},
        "wall_seconds": round(walltime.spent(out), 1),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
    }


def _row(suite: Suite, task: str, result: dict) -> dict:
    told = ("episodes", "successes", "success", "ci95", "errors")
    groups = [group for group, tasks in suite.groups.items() if task in tasks]
    return {
        "policy": result["policy"], "task": task, "group": ", ".join(groups), "train_seed": None,
        **{key: result[key] for key in told}, "muVLA (7B), published": suite.published.get(task),
    }  # fmt: skip


def _groups(suite: Suite, results: dict, missing: dict) -> Iterator[dict]:
    """The mean over the tasks of each group that were played, and how many of them were."""
    for group, tasks in suite.groups.items():
        played = [results[task] for task in tasks if task in results and results[task]["episodes"]]
        if played:
            rates, successes = [one["success"] for one in played], sum(one["successes"] for one in played)
            total = sum(one["episodes"] for one in played)
            yield {
                "group": group, "tasks": len(played), "of": len(tasks), "success": sum(rates) / len(rates),
                "ci95": list(wilson(successes, total)), "episodes": total, "successes": successes,
                "missing": [task for task in tasks if task in missing],
                **{method: means.get(group) for method, means in suite.means.items()},
            }  # fmt: skip


def publish(out: Path, found: dict, suite: Suite) -> None:
    """summary.json, the table and the page."""
    replace_text(out / "summary.json", json.dumps(found, indent=1) + "\n")
    if found["tasks"]:
        means = [_mean_row(found, row) for row in found["groups"]]
        asked = {key: found[key] for key in ("checkpoint", "episodes", "knobs", "missing")}
        command = f"engram suite {suite.name} --checkpoint {found['checkpoint']}"
        notes = found["protocol"] + "".join(f"; {text}" for text in found["missing"].values()) + "."
        rows, seconds = means + found["tasks"], found["wall_seconds"]
        write_result(out / "suite.json", f"suite {suite.name}", command, rows, seconds, found["counters"], asked, notes)
    write_suite(out, found)


def _mean_row(found: dict, row: dict) -> dict:
    told = ("episodes", "successes", "success", "ci95")
    name = f"mean of {row['tasks']} of {row['of']} tasks"
    published = row.get("muVLA (7B)")
    return {
        "policy": found["tasks"][0]["policy"], "task": name, "group": row["group"], "train_seed": None,
        **{key: row[key] for key in told}, "errors": None, "muVLA (7B), published": published,
    }  # fmt: skip
