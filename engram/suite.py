"""A whole benchmark by its protocol: every task of every group, resumable episode by episode, one table, one page."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from engram import provenance, walltime
from engram.envs import MIKASA, mikasa
from engram.envs.mikasa import published
from engram.envs.unknown import unknown
from engram.files import replace_text
from engram.policies.checkpoint import load
from engram.report import write_result, write_suite
from engram.rollout import EpisodeError, summarise
from engram.rollout.checkpoint import evaluate_checkpoint
from engram.rollout.records import fingerprint, read
from engram.stats import wilson

console = Console(stderr=True)
COUNTED = ("observations", "writes", "plans", "renders")


@dataclass(frozen=True)
class Suite:
    """What to play: groups of tasks by name, where tasks are as `engram.envs.make` knows them, and the first seed.

    reference  the method of a paper to compare with, one of `means`
    published  task -> what is known of the reference's rate for it, and whence
    means      method of a paper -> group -> its mean
    protocol   what a reader of the table must know
    device     where it is simulated unless a knob says otherwise
    """

    name: str
    groups: Mapping[str, tuple[str, ...]]
    first_seed: int
    reference: str
    published: Mapping[str, tuple[float, str]]
    means: Mapping[str, Mapping[str, float]]
    protocol: str
    device: str = "cpu"

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task once, in the order of the groups."""
        return tuple(dict.fromkeys(task for group in self.groups.values() for task in group))


def mikasa_suite(device: str | None = None) -> Suite:
    """MIKASA-Robo-VLA: muVLA's 23 tasks in three groups, and the MemoryVLA papers' canonical five.

    Simulated on `device`, "cpu" or "gpu"; by default as `mikasa.usual_device` says.
    """
    device = device or mikasa.usual_device()
    protocol = (
        f"seeds {mikasa.FIRST_SEED}+i, success at any tick, {mikasa.simulated(device)} (the papers: a GPU, mani-skill "
        "3.0.0b15); unless strict, the wrist camera's housing is not drawn"
    )
    groups = {**mikasa.GROUPS, "canonical": mikasa.CANONICAL}
    return Suite(
        "mikasa",
        {group: tuple(MIKASA + task for task in tasks) for group, tasks in groups.items()},
        mikasa.FIRST_SEED,
        published.REFERENCE,
        {MIKASA + task: rate for task, rate in published.MU_VLA.items()},
        published.GROUP_MEANS,
        protocol,
        device,
    )


def run(
    suite: Suite,
    checkpoint: Path,
    out: Path,
    only: Sequence[str] = (),
    episodes: int = mikasa.EPISODES,
    workers: int = 2,
    videos: int = 0,
    knobs: Mapping[str, Any] | None = None,
) -> dict:
    """Play what of the suite `out` does not hold yet; returns its summary (also out/summary.json, .md and report.html).

    Args:
        suite: what to play.
        checkpoint: a policy's folder.
        out: folder of the results; of one policy, one setting and one kind of device.
        only: names of groups or tasks to play now; all by default. The summary is of all that `out` holds.
        episodes: of each task.
        workers: simulator processes, one episode at a time each.
        videos: films of the first so many episodes of each task.
        knobs: settings of the environments.

    A task whose assets are missing is named in the summary and counts as nothing; one with fewer episodes than asked
    for, or with errors, is in no mean. ValueError for an unknown name or a folder of another policy or setting;
    EpisodeError, after all else is done, if a simulator failed in some episodes.
    """
    knobs, tasks, seeds = dict(knobs or {}), _chosen(suite, only), range(suite.first_seed, suite.first_seed + episodes)
    policy = fingerprint(load(checkpoint)[0])
    if workers < 1 or episodes < 1:
        raise ValueError(f"expected 1 or more workers and episodes, found {workers} and {episodes}; ask for more")
    plan = {"suite": suite.name, "knobs": knobs, "policy_sha256": policy, "device": knobs.get("device", suite.device)}
    provenance.settle(out, plan)
    before = _before(out)
    missing: dict[str, str] = dict(before.get("missing", {}))
    shares = {row["task"]: row.get("simulator_share") for row in before.get("tasks", [])}
    broken: list[str] = []
    crew = partial(evaluate_checkpoint, checkpoint, lanes=workers, workers=workers)
    play = partial(crew, seeds=seeds, videos=videos, knobs=knobs)
    for number, task in enumerate(tasks, 1):
        console.rule(f"{suite.name} {number}/{len(tasks)}: {task}")
        try:
            with walltime.timed(out):
                result = play(task=task, out=_file(out, task))
            _require_same(policy, result["policy_sha256"], checkpoint)
            missing.pop(task, None)  # its assets have come
            shares[task] = result["simulator_share"] or shares.get(task)
        except mikasa.MissingAssetsError as error:
            missing[task] = str(error)
            console.print(str(error), style="yellow", soft_wrap=True)
        except EpisodeError as error:
            broken.append(f"{task}: {error}")
        found = summary(suite, checkpoint, out, plan, episodes, missing, shares)
        publish(out, found, suite)
    if broken:
        raise EpisodeError("; ".join(broken))
    return found


def _before(out: Path) -> dict:
    """The summary that `out` holds; empty for a new folder."""
    file = out / "summary.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _file(out: Path, task: str) -> Path:
    return out / "eval" / f"{task.replace('/', '-')}.jsonl"


def _require_same(asked: str, played: str, checkpoint: Path) -> None:
    """ValueError if the checkpoint has become another policy meanwhile."""
    if asked != played:
        raise ValueError(
            f"{checkpoint}: expected the policy that the suite began with, found another; wait for its training to end"
        )


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
    suite: Suite,
    checkpoint: Path,
    out: Path,
    plan: dict,
    episodes: int,
    missing: dict[str, str],
    shares: dict[str, float | None],
) -> dict:
    """Of all that `out` holds: a row for each task played, the mean of each group, what is missing.

    `shares` says of a task how much of its last sitting the policy waited for simulators.
    """
    seeds = range(suite.first_seed, suite.first_seed + episodes)
    files = {task: _file(out, task) for task in suite.tasks}
    lines = {
        task: [line for line in read(file) if line["seed"] in seeds] for task, file in files.items() if file.exists()
    }
    results = {task: summarise(found) for task, found in lines.items() if found}
    rows = [_row(suite, task, result) | {"simulator_share": shares.get(task)} for task, result in results.items()]
    return {
        "suite": suite.name,
        "checkpoint": str(checkpoint),
        **plan,
        "protocol": suite.protocol,
        "reference": suite.reference,
        "episodes": episodes,
        "tasks": rows,
        "groups": list(_groups(suite, results, missing, episodes)),
        "missing": missing,
        "counters": {key: sum(result["counters"][key] for result in results.values()) for key in COUNTED}
        | {"errors": sum(result["errors"] for result in results.values())}
        | {"deaths": sum(line.get("deaths", 0) for found in lines.values() for line in found)},
        "wall_seconds": round(walltime.spent(out), 1),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
    }


def _row(suite: Suite, task: str, result: dict) -> dict:
    told = ("episodes", "successes", "success", "ci95", "errors")
    groups = [group for group, tasks in suite.groups.items() if task in tasks]
    rate, source = suite.published.get(task, (None, None))
    return {
        "policy": result["policy"], "task": task, "group": ", ".join(groups), "train_seed": None,
        **{key: result[key] for key in told}, suite.reference: rate, "source": source,
    }  # fmt: skip


def _groups(suite: Suite, results: dict, missing: dict, episodes: int) -> Iterator[dict]:
    """The mean over those tasks of each group that were played to the end, and which were not.

    Beside it what papers report for the same tasks, where that is known.
    """
    whole = {task for task, result in results.items() if result["episodes"] == episodes}
    for group, tasks in suite.groups.items():
        played = [task for task in tasks if task in whole]
        if not played:
            continue
        successes, total = (sum(results[task][key] for task in played) for key in ("successes", "episodes"))
        theirs = {method: means.get(group) for method, means in suite.means.items()}
        if len(played) < len(tasks):
            theirs = dict.fromkeys(theirs)
        yield {
            "group": group, "tasks": len(played), "of": len(tasks), "success": successes / total,
            "ci95": list(wilson(successes, total)), "episodes": total, "successes": successes,
            "missing": [task for task in tasks if task in missing],
            "incomplete": [task for task in tasks if task in results and task not in whole],
            **theirs, suite.reference: _of_reference(suite, group, played),
        }  # fmt: skip


def _of_reference(suite: Suite, group: str, played: Sequence[str]) -> float | None:
    """The reference's mean over these tasks of a group: as reported, else from the rates of these tasks, else from its
    mean over the group and the rates of the others. None if that is not known."""
    tasks, rates = suite.groups[group], {task: rate for task, (rate, _) in suite.published.items()}
    mean, others = suite.means[suite.reference].get(group), [task for task in tasks if task not in played]
    if mean is not None and not others:
        return mean
    if all(task in rates for task in played):
        return fmean(rates[task] for task in played)
    if mean is not None and all(task in rates for task in others):
        return (mean * len(tasks) - sum(rates[task] for task in others)) / len(played)
    return None


def publish(out: Path, found: dict, suite: Suite) -> None:
    """summary.json, the table and the page."""
    replace_text(out / "summary.json", json.dumps(found, indent=1) + "\n")
    if found["tasks"]:
        means = [_mean_row(suite, found, row) for row in found["groups"]]
        asked = {key: found[key] for key in ("checkpoint", "policy_sha256", "device", "episodes", "knobs", "missing")}
        knobs = found["knobs"]
        said = " --strict" * bool(knobs.get("strict")) + (f" --device {knobs['device']}" if "device" in knobs else "")
        command = f"engram suite {suite.name} --checkpoint {found['checkpoint']} --episodes {found['episodes']}{said}"
        notes = found["protocol"] + "".join(f"; {text}" for text in found["missing"].values()) + "."
        rows, seconds = means + found["tasks"], found["wall_seconds"]
        write_result(out / "suite.json", f"suite {suite.name}", command, rows, seconds, found["counters"], asked, notes)
    write_suite(out, found)


def _mean_row(suite: Suite, found: dict, row: dict) -> dict:
    told = ("episodes", "successes", "success", "ci95")
    name = f"mean of {row['tasks']} of {row['of']} tasks"
    return {
        "policy": found["tasks"][0]["policy"], "task": name, "group": row["group"], "train_seed": None,
        **{key: row[key] for key in told}, "errors": 0, suite.reference: row[suite.reference], "source": None,
        "simulator_share": None,
    }  # fmt: skip
