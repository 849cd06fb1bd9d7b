"""Studies: several designs, several training seeds, the same data and test episodes; one table that can be repeated.

A recipe defines `STUDY`; `engram study recipes/NAME.py` runs what is missing, seed by seed so that an unfinished study
is balanced, and rewrites results/NAME.json and .md after every run.
"""

import json
import os
import runpy
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from engram.crew import Job, counters, fit_all, trained
from engram.data.seeds import TEST
from engram.demos import collect
from engram.policies.design import Design, require_whole_windows
from engram.report import write_result
from engram.rollout.checkpoint import evaluate_checkpoint
from engram.rollout.records import read
from engram.settings import Settings
from engram.stats import cluster_bootstrap, wilson

console = Console(stderr=True)
RESULTS = Path("results")


@dataclass(frozen=True)
class Arm:
    """One row of the table: what is trained, and how."""

    design: Design
    settings: Settings

    def __post_init__(self):
        require_whole_windows(self.design, self.settings)  # before hours of training, not after


@dataclass(frozen=True)
class Study:
    """What to compare.

    tasks     demonstrations are recorded for each (`demos` episodes with `knobs`) and mixed; tests are on the first
    arms      by name; every arm is trained for each of `seeds` (its Settings.seed)
    tests     evaluations of each policy: name -> knobs of the environment
    episodes  test episodes, the same for all
    notes     what a reader of the table must know
    """

    name: str
    tasks: tuple[str, ...]
    arms: dict[str, Arm]
    seeds: tuple[int, ...] = (0, 1, 2)
    demos: int = 300
    episodes: int = 100
    knobs: dict = field(default_factory=dict)
    tests: dict[str, dict] = field(default_factory=lambda: {"": {}})
    notes: str = ""


def run_recipe(recipe: Path, out: Path | None = None) -> Path:
    """Run the STUDY of a recipe; returns the table's JSON file. Raises ValueError if the recipe has none."""
    if not recipe.is_file():
        raise ValueError(f"{recipe}: expected a recipe (a Python file with a STUDY), found no file; see recipes/")
    study = runpy.run_path(str(recipe)).get("STUDY")
    if not isinstance(study, Study):
        found = "none" if study is None else type(study).__name__
        raise ValueError(f"{recipe}: expected a STUDY of type engram.study.Study, found {found}; see recipes/")
    return run(study, out or Path("runs") / study.name, recipe)


def run(study: Study, out: Path, recipe: Path) -> Path:
    """Train and test every arm and seed that `out` does not hold yet, as many at once as there are cores."""
    data, table = _demos(study, out), RESULTS / f"{study.name}.json"
    missing = [(name, seed) for seed in study.seeds for name in study.arms if not _rows(out, name, seed).exists()]
    crew = os.cpu_count() or 1
    for start in range(0, len(missing), crew):
        some = missing[start : start + crew]
        console.rule(f"{study.name}: {', '.join(f'{name} seed {seed}' for name, seed in some)}")
        jobs = {f"{name} seed {seed}": _job(study, data, out, name, seed) for name, seed in some}
        fit_all({name: job for name, job in jobs.items() if not trained(job)})
        for job in jobs.values():
            _test(study, job)
        _table(study, out, recipe, table)
    return table


def _demos(study: Study, out: Path) -> tuple[Path, ...]:
    folders = tuple(out / "demos" / task for task in study.tasks)
    for seed, folder in enumerate(folders):
        if not folder.exists():
            collect(folder.name, study.demos, folder, seed=seed, **study.knobs)
    return folders


def _job(study: Study, data: tuple[Path, ...], out: Path, name: str, seed: int) -> Job:
    arm = study.arms[name]
    return Job(data, arm.design, replace(arm.settings, seed=seed), _rows(out, name, seed).parent)


def _rows(out: Path, name: str, seed: int) -> Path:
    return out / f"{name}-seed{seed}" / "rows.json"


def _test(study: Study, job: Job) -> None:
    """The tests of one trained policy, its rows kept."""
    began, rows = time.perf_counter(), []
    training = counters(job)
    for test, knobs in study.tests.items():
        seeds, file = range(TEST, TEST + study.episodes), job.out / "eval" / f"{test or 'default'}.jsonl"
        result = evaluate_checkpoint(job.out / "checkpoint", study.tasks[0], seeds, file, knobs=study.knobs | knobs)
        rows.append({"test": test, **result, **{key: training[key] for key in ("updates", "frames", "train_seconds")}})
    seconds = round(training["train_seconds"] + time.perf_counter() - began, 1)
    (job.out / "rows.json").write_text(json.dumps({"rows": rows, "seconds": seconds}) + "\n")


def _table(study: Study, out: Path, recipe: Path, table: Path) -> None:
    """All rows there are, then per arm the mean with an interval clustered by training seed."""
    kept = {folder: json.loads((out / folder / "rows.json").read_text()) for folder in _finished(study, out)}
    rows = [
        _row(name, seed, row) for (name, seed), folder in _runs(study) if folder in kept for row in kept[folder]["rows"]
    ]
    seconds = sum(result["seconds"] for result in kept.values())
    counters = {
        key: sum(row["counters"][key] for row in rows) for key in ("observations", "writes", "plans", "renders")
    }
    for row in rows:
        del row["counters"]
    means = [mean for name in study.arms for test in study.tests for mean in _mean(study, out, name, test, list(kept))]
    write_result(table, study.name, str(recipe), means + rows, seconds, counters, study.notes)


def _runs(study: Study) -> Iterator[tuple[tuple[str, int], str]]:
    for name in study.arms:
        for seed in study.seeds:
            yield (name, seed), f"{name}-seed{seed}"


def _finished(study: Study, out: Path) -> list[str]:
    return [folder for _, folder in _runs(study) if (out / folder / "rows.json").exists()]


def _row(name: str, seed: int, row: dict) -> dict:
    tested = ("task", "test", "episodes", "successes", "success", "ci95", "errors", "counters")
    trained = ("updates", "frames", "train_seconds")
    return {"policy": name, "train_seed": seed} | {key: row[key] for key in tested + trained}


def _mean(study: Study, out: Path, name: str, test: str, kept: list[str]) -> Iterator[dict]:
    """The mean row of an arm over its finished training seeds, if any."""
    folders = [folder for (arm, _), folder in _runs(study) if arm == name and folder in kept]
    results = [[line["success"] for line in read(out / f / "eval" / f"{test or 'default'}.jsonl")] for f in folders]
    if not results:
        return
    successes, episodes = sum(map(sum, results)), sum(map(len, results))
    ci95 = list(cluster_bootstrap(results)) if len(results) > 1 else list(wilson(successes, episodes))
    yield {
        "policy": name, "train_seed": "mean", "task": study.tasks[0], "test": test, "episodes": episodes,
        "successes": successes, "success": successes / episodes, "ci95": ci95,
    }  # fmt: skip
