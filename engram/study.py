"""Studies: several designs, several training seeds, the same data and test episodes; one table that can be repeated.

A recipe defines `STUDY`; `engram study recipes/NAME.py` runs what is missing, seed by seed so that an unfinished study
is balanced, and rewrites results/NAME.json and .md, in the current directory, after every few runs.
"""

import json
import runpy
from collections.abc import Container, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rich.console import Console

from engram import provenance, walltime
from engram.crew import ROOM_GB, Job, TrainingError, counters, fit_all, trained, trained_by
from engram.data.seeds import TEST
from engram.demos import collect, notes, other_expert
from engram.envs import MIKASA
from engram.files import replace_text
from engram.policies.design import Design, require_whole_windows
from engram.report import write_result
from engram.rollout import compare
from engram.rollout.chance import chance
from engram.rollout.checkpoint import evaluate_checkpoint
from engram.rollout.records import read
from engram.settings import Settings
from engram.stats import crossed_bootstrap, wilson

console = Console(stderr=True)
RESULTS = Path("results")
PER_CORE = 4  # trainings of a batch, so that cores do not wait for one another; a batch is tested when it is trained


@dataclass(frozen=True)
class Arm:
    """One row of the table: what is trained, and how; for each of `seeds` (Settings.seed), by default the study's."""

    design: Design
    settings: Settings
    seeds: tuple[int, ...] = ()

    def __post_init__(self):
        require_whole_windows(self.design, self.settings)  # before hours of training, not after


@dataclass(frozen=True)
class Study:
    """What to compare.

    tasks     demonstrations are recorded for each (`demos` episodes with `knobs`) and mixed; those of a task that is
              named twice are shown twice as often
    tested    tasks that policies are tested on; by default the first of `tasks`
    arms      by name; every arm is trained for each of `seeds`, or of its own, and compared with the first arm
    tests     evaluations of each policy: name -> knobs of the environment
    episodes  test episodes, the same for all, from `first_seed` on; chance is measured on `chance_episodes` of its own
              (0: not at all)
    demo_seeds  of each task's demonstrations; by default 0, 1, ...
    room_gb   memory that a training takes: no more run side by side than fit
    notes     what a reader of the table must know
    """

    name: str
    tasks: tuple[str, ...]
    arms: dict[str, Arm]
    tested: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    demos: int = 300
    episodes: int = 100
    first_seed: int = TEST
    chance_episodes: int = 1000
    demo_seeds: tuple[int, ...] = ()
    room_gb: float = ROOM_GB
    knobs: dict = field(default_factory=dict)
    tests: dict[str, dict] = field(default_factory=lambda: {"": {}})
    notes: str = ""

    def __post_init__(self):
        if self.demo_seeds and len(self.demo_seeds) != len(self.recorded()):
            expected = f"one for each of {len(self.recorded())} tasks"
            raise ValueError(f"demo_seeds: expected {expected}, found {len(self.demo_seeds)}; give as many, or none")
        if self.chance_episodes and any(task.startswith(MIKASA) for _, task, _ in self.trials()):
            raise ValueError(
                f"chance_episodes: expected 0 for MIKASA-Robo, whose experts do not guess, found {self.chance_episodes}"
            )

    def recorded(self) -> tuple[str, ...]:
        """Each of its tasks once."""
        return tuple(dict.fromkeys(self.tasks))

    def trials(self) -> list[tuple[str, str, dict]]:
        """(test, task, knobs) of every evaluation of a policy."""
        tasks = self.tested or self.tasks[:1]
        return [(test, task, self.knobs | knobs) for task in tasks for test, knobs in self.tests.items()]

    def test_seeds(self) -> range:
        """The seeds of its test episodes."""
        return range(self.first_seed, self.first_seed + self.episodes)


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
    """Train and test, batch by batch, every arm and seed that `out` does not hold yet; a core for each training.

    Returns the table's JSON file, in results/ of the current directory. ValueError if `out` holds demonstrations or
    policies of another study.
    """
    made = {"tasks": study.recorded(), "demos": study.demos, "knobs": study.knobs}
    provenance.settle(out, made | ({"demo_seeds": study.demo_seeds} if study.demo_seeds else {}))
    for name, seed in _runs(study):
        provenance.settle(_folder(out, name, seed), _plan(study, name, seed))
    data, table, batch = _demos(study, out), RESULTS / f"{study.name}.json", PER_CORE * provenance.cores()
    missing = [run for run in _runs(study) if not (_folder(out, *run) / "rows.json").exists()]
    for start in range(0, len(missing), batch):
        some = missing[start : start + batch]
        console.rule(f"{study.name}: {', '.join(f'{name} seed {seed}' for name, seed in some)}")
        jobs = {f"{name} seed {seed}": _job(study, data, out, name, seed) for name, seed in some}
        try:
            with walltime.timed(out):
                fit_all({name: job for name, job in jobs.items() if not trained(job)}, study.room_gb)
        except (ValueError, TrainingError):
            _finish(study, jobs.values(), out, recipe, table)  # what did train is not lost
            raise
        _finish(study, jobs.values(), out, recipe, table)
    if not missing:  # a kill may have come between the last rows and their table
        _table(study, out, recipe, table)
    console.print(f"{table} and {table.with_suffix('.md').name}: the whole study", soft_wrap=True)
    return table


def _runs(study: Study) -> list[tuple[str, int]]:
    asked = {name: arm.seeds or study.seeds for name, arm in study.arms.items()}
    return [(name, seed) for seed in sorted(set().union(*asked.values())) for name in asked if seed in asked[name]]


def _folder(out: Path, name: str, seed: int) -> Path:
    return out / f"{name}-seed{seed}"


def _episodes(study: Study, folder: Path, test: str, task: str) -> Path:
    of = f"{task.replace('/', '-')}-" if study.tested else ""
    return folder / "eval" / f"{of}{test or 'default'}.jsonl"


def _plan(study: Study, name: str, seed: int) -> dict:
    """What decides the rows of a run."""
    arm = study.arms[name]
    settings = replace(arm.settings, seed=seed).identity()
    plan = {"design": arm.design.identity(), "settings": settings, "tests": study.tests, "episodes": study.episodes}
    plan |= {"tested": study.tested} if study.tested else {}  # plans of before there were these stay as they are
    plan |= {"shown": study.tasks} if study.tasks != study.recorded() else {}
    return plan | ({"first_seed": study.first_seed} if study.first_seed != TEST else {})


def _demos(study: Study, out: Path) -> tuple[Path, ...]:
    folders = _folders(study, out)
    for (task, folder), seed in zip(folders.items(), study.demo_seeds or range(len(folders)), strict=True):
        if not folder.exists():
            collect(task, study.demos, folder, seed=seed, **study.knobs)
        elif other_expert(folder, task):
            said = f"{folder}: not known to be of the expert, or the noise, that {task} has now"
            console.print(f"{said}; delete it to record it anew", style="yellow")
    return tuple(folders[task] for task in study.tasks)


def _folders(study: Study, out: Path) -> dict[str, Path]:
    """Where the demonstrations of each task are."""
    return {task: out / "demos" / task for task in study.recorded()}


def _job(study: Study, data: tuple[Path, ...], out: Path, name: str, seed: int) -> Job:
    arm = study.arms[name]
    return Job(data, arm.design, replace(arm.settings, seed=seed), _folder(out, name, seed))


def _finish(study: Study, jobs: Iterable[Job], out: Path, recipe: Path, table: Path) -> None:
    """Test those of the jobs that are trained, and rewrite the table."""
    with walltime.timed(out):
        for job in filter(trained, jobs):
            _test(study, job)
    _table(study, out, recipe, table)


def _test(study: Study, job: Job) -> None:
    """The tests of one trained policy, its rows kept."""
    rows, training = [], counters(job)
    for test, task, knobs in study.trials():
        file = _episodes(study, job.out, test, task)
        result = evaluate_checkpoint(job.out / "checkpoint", task, study.test_seeds(), file, knobs=knobs)
        rows.append({"test": test, **result, **{key: training[key] for key in ("updates", "frames", "train_seconds")}})
    replace_text(job.out / "rows.json", json.dumps({"rows": rows}) + "\n")


def _table(study: Study, out: Path, recipe: Path, table: Path) -> None:
    """Per arm the mean with an interval over training seeds and episodes, then chance, then all rows there are."""
    runs = sorted(_runs(study), key=lambda run: list(study.arms).index(run[0]))
    files = {run: _folder(out, *run) / "rows.json" for run in runs}
    kept = {run: json.loads(file.read_text()) for run, file in files.items() if file.exists()}
    tested = [row for result in kept.values() for row in result["rows"]]
    counters = {
        key: sum(row["counters"][key] for row in tested) for key in ("observations", "writes", "plans", "renders")
    } | {"errors": sum(row["errors"] for row in tested)}
    trials = study.trials()
    rows = [mean for name in study.arms for mean in _over_tasks(study, out, name, kept)]
    rows += [
        mean for name in study.arms for test, task, _ in trials for mean in _mean(study, out, name, test, task, kept)
    ]
    rows += [_chance(study, out, *trial) for trial in trials if study.chance_episodes]
    rows += [_row(study, out, run, row) for run, result in kept.items() for row in result["rows"]]
    asked = asdict(study) | {"test_seeds": [study.test_seeds()[0], study.test_seeds()[-1]]}
    asked["demonstrations"] = {task: notes(folder) for task, folder in _folders(study, out).items()}
    write_result(table, study.name, str(recipe), rows, walltime.spent(out), counters, asked, study.notes)


def _row(study: Study, out: Path, run: tuple[str, int], row: dict) -> dict:
    """A row of the table from one of rows.json."""
    tested = ("task", "test", "episodes", "successes", "success", "ci95", "errors")
    trained = ("updates", "frames", "train_seconds")
    return {
        "policy": run[0], "train_seed": run[1], **{key: row[key] for key in tested},
        "paired_p": _paired(study, out, run, row["test"], row["task"]), **{key: row[key] for key in trained},
        "trained_by": trained_by(_folder(out, *run)),
    }  # fmt: skip


def _paired(study: Study, out: Path, run: tuple[str, int], test: str, task: str) -> float | None:
    """P-value against the first arm with the same training seed; None for that arm, and where it is not tested yet."""
    ours, theirs = _folder(out, *run), _folder(out, next(iter(study.arms)), run[1])
    if ours == theirs or not (theirs / "rows.json").exists():
        return None
    return compare(_episodes(study, ours, test, task), _episodes(study, theirs, test, task))["p"]


def _chance(study: Study, out: Path, test: str, task: str, knobs: dict) -> dict:
    """The row of an expert that guesses, on episodes of its own: shared guesses would make all tests one sample."""
    of = f"{task.replace('/', '-')}-" if study.tested else ""
    file = out / "chance" / f"{of}{test or 'default'}.json"
    first = study.chance_episodes * list(study.tests).index(test)
    result = chance(file, task, study.chance_episodes, first, **knobs)
    return {"policy": "chance", "train_seed": None, "task": task, "test": test, **result}


Kept = Container[tuple[str, int]]  # the runs that are trained and tested


def _over_tasks(study: Study, out: Path, name: str, kept: Kept) -> Iterator[dict]:
    """The mean row of an arm over all tasks, where several are tested; they have equally many episodes."""
    if study.tested and len(study.trials()) > 1:
        by_task = [_outcomes(study, out, name, test, task, kept) for test, task, _ in study.trials()]
        by_seed = [[won for task in tasks for won in task] for tasks in zip(*by_task, strict=True)]
        yield from _mean_row(name, f"mean of {len(by_task)}", "", by_seed)


def _mean(study: Study, out: Path, name: str, test: str, task: str, kept: Kept) -> Iterator[dict]:
    """The mean row of an arm in one task over its finished training seeds, if any."""
    yield from _mean_row(name, task, test, _outcomes(study, out, name, test, task, kept))


def _outcomes(study: Study, out: Path, name: str, test: str, task: str, kept: Kept) -> list[list[bool]]:
    """Of each finished training seed of an arm, the outcomes of its episodes."""
    mine = [run for run in _runs(study) if run[0] == name and run in kept]
    return [[line["success"] for line in read(_episodes(study, _folder(out, *run), test, task))] for run in mine]


def _mean_row(name: str, task: str, test: str, outcomes: list[list[bool]]) -> Iterator[dict]:
    """A row of the mean over training seeds and episodes, if there are any."""
    if not outcomes:
        return
    successes, episodes = sum(map(sum, outcomes)), sum(map(len, outcomes))
    ci95 = list(crossed_bootstrap(outcomes)) if len(outcomes) > 1 else list(wilson(successes, episodes))
    yield {
        "policy": name, "train_seed": "mean", "task": task, "test": test, "episodes": episodes,
        "successes": successes, "success": successes / episodes, "ci95": ci95,
    }  # fmt: skip
