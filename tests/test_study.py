"""Studies: what is missing is trained and tested, what another plan made is refused, and the table says it all."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import fakes
import pytest
from test_data import record

from engram import study, walltime
from engram.data.lerobot import Dataset
from engram.data.seeds import TEST
from engram.policies.design import Design
from engram.settings import Settings
from engram.stats import crossed_bootstrap, mcnemar
from engram.study import Arm, Study, run
from engram.train import fit

# not importorskip: MuJoCo must be imported by the environment, which chooses how it renders first
pytestmark = pytest.mark.skipif(find_spec("mujoco") is None, reason="needs the extra `tabletop`")

TASK, COMMIT, RECIPE = "recall-color-3", "0123456789abcdef", Path("recipe.py")
SETTINGS = Settings(updates=2, slots=2, ticks=3, start="scratch", tensorboard=False)
ARMS = {name: Arm(Design(m=m, chunk=2, trained="all"), SETTINGS) for name, m in (("memory", 1), ("memoryless", 0))}
FEW = {"demos": 2, "episodes": 1, "chance_episodes": 9}
SMALL = Study("small", (TASK,), ARMS, seeds=(0,), **FEW, knobs={"delay_ticks": (1, 2)}, notes="Small.")


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A folder that holds the demonstrations already; the current directory is beside it."""
    monkeypatch.chdir(tmp_path)
    record(tmp_path / "out/demos" / TASK, (4, 3), replace(fakes.SPEC, height=64, width=64))
    return tmp_path / "out"


def test_a_study_from_training_to_table(out, monkeypatch, capsys):
    trained = []

    def here(jobs, room_gb):  # in this process, which has torch loaded
        trained.extend(jobs)
        for job in jobs.values():
            fit(Dataset(*job.data), job.design, job.settings, job.out, quiet=True)

    monkeypatch.setattr(study, "fit_all", here)
    table = run(SMALL, out, RECIPE)
    assert trained == ["memory seed 0", "memoryless seed 0"]
    assert json.loads(table.read_text())["seconds"] == round(walltime.spent(out), 1) > 0
    result = json.loads(table.read_text())
    rows = [(row["policy"], row["train_seed"]) for row in result["rows"]]
    assert rows == [("memory", "mean"), ("memoryless", "mean"), ("chance", None), ("memory", 0), ("memoryless", 0)]
    assert {row["updates"] for row in result["rows"][3:]} == {2}
    assert result["counters"]["renders"] == result["counters"]["observations"] > result["counters"]["writes"] > 0
    assert str(table) == "results/small.json"
    (out / "memory-seed0/rows.json").unlink()  # the training is kept, and so are the episodes
    table.unlink()
    run(SMALL, out, RECIPE)
    assert len(trained) == 2
    assert json.loads(table.read_text())["rows"] == result["rows"]
    assert "results/small.json" in capsys.readouterr().err


def test_a_task_named_twice_is_recorded_once_and_shown_twice(out, monkeypatch):
    asked = []
    monkeypatch.setattr(study, "fit_all", lambda jobs, room_gb: asked.extend(job.data for job in jobs.values()))
    run(replace(SMALL, tasks=(TASK, TASK)), out, RECIPE)
    assert asked == 2 * [(out / "demos" / TASK, out / "demos" / TASK)]
    with pytest.raises(ValueError, match="memory-seed0.* other shown"):  # not the policies of one that shows it once
        run(SMALL, out, RECIPE)


def finished(out, solved):
    """The folders of a study whose every run is done; `solved`: (arm, seed) -> outcome by episode."""
    for (name, seed), outcomes in solved.items():
        folder, lines = out / f"{name}-seed{seed}", []
        for number, success in enumerate(outcomes):
            lines.append({"task": TASK, "seed": TEST + number, "success": success, "error": None})
        counts = {"observations": 9, "writes": 9, "plans": 9, "renders": 9}
        row = {"task": TASK, "test": "", "episodes": len(lines), "successes": sum(outcomes), "errors": 0}
        row |= {"success": sum(outcomes) / len(lines), "ci95": [0, 1], "counters": counts}
        row |= {"updates": 2, "frames": 7, "train_seconds": 1.5}
        (folder / "eval").mkdir(parents=True)
        (folder / "eval/default.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "eval/default.settings.json").write_text(json.dumps({"knobs": {}}))
        (folder / "rows.json").write_text(json.dumps({"rows": [row]}))
        (folder / "config.json").write_text(json.dumps({"sittings": [{"from_update": 0, "commit": COMMIT}]}))


def test_a_finished_study_called_again_is_a_table(out):
    solved = {
        ("memory", 0): [True] * 8,
        ("memory", 1): [True] * 6 + [False] * 2,
        ("memoryless", 0): [True] * 2 + [False] * 6,
        ("memoryless", 1): [True] * 7 + [False],
    }
    finished(out, solved)
    result = json.loads(run(replace(SMALL, seeds=(0, 1), episodes=8), out, RECIPE).read_text())
    means, (guessed,), rows = result["rows"][:2], result["rows"][2:3], result["rows"][3:]
    assert [(row["policy"], row["train_seed"]) for row in rows] == list(solved)
    assert [row["paired_p"] for row in rows] == [None, None, mcnemar(solved["memoryless", 0], [True] * 8), 1.0]
    assert rows[2]["paired_p"] < 0.05
    assert [row["trained_by"] for row in rows] == [[COMMIT[:12]]] * 4
    assert [row["success"] for row in means] == [14 / 16, 9 / 16]
    assert means[1]["ci95"] == list(crossed_bootstrap([solved["memoryless", seed] for seed in (0, 1)]))
    assert (guessed["policy"], guessed["episodes"]) == ("chance", 9)
    assert result["counters"] == {"observations": 36, "writes": 36, "plans": 36, "renders": 36, "errors": 0}
    assert result["configuration"]["arms"]["memoryless"]["settings"]["updates"] == 2
    assert result["configuration"]["test_seeds"] == [TEST, TEST + 7]


def test_the_mean_over_tasks_has_an_interval_over_seeds_and_all_their_episodes(out):
    tasks, by_seed = (TASK, "recall-color-5"), {}
    for seed, (first, second) in enumerate((((True, False), (True, True)), ((False, False), (True, False)))):
        finished(out, {("memory", seed): first})
        lines = (out / f"memory-seed{seed}/eval/default.jsonl").read_text()
        for task, outcomes in zip(tasks, (first, second), strict=True):
            kept = [json.loads(line) | {"success": won} for line, won in zip(lines.splitlines(), outcomes, strict=True)]
            file = out / f"memory-seed{seed}/eval/{task}-default.jsonl"
            file.write_text("".join(json.dumps(line) + "\n" for line in kept))
        by_seed[seed] = [*first, *second]
    record(out / "demos" / tasks[1], (4, 3), replace(fakes.SPEC, height=64, width=64))
    both = replace(
        SMALL, tasks=tasks, tested=tasks, arms={"memory": ARMS["memory"]}, seeds=(0, 1), episodes=2, chance_episodes=0
    )
    mean = json.loads(run(both, out, RECIPE).read_text())["rows"][0]
    assert (mean["task"], mean["successes"], mean["episodes"]) == ("mean of 2", 4, 8)
    assert mean["ci95"] == list(crossed_bootstrap([by_seed[0], by_seed[1]]))


def test_a_table_says_how_its_demonstrations_were_recorded(out, capsys):
    finished(out, {(name, 0): [True] for name in ARMS})
    (out / "demos" / TASK / "meta/engram.json").write_text(json.dumps({"dropped": 3}))
    result = json.loads(run(SMALL, out, RECIPE).read_text())
    assert result["configuration"]["demonstrations"] == {TASK: {"dropped": 3}}
    assert "not known to be of the expert" in capsys.readouterr().err


def test_where_experts_do_not_guess_no_chance_is_asked_for():
    with pytest.raises(ValueError, match="chance_episodes: expected 0 for MIKASA-Robo"):
        replace(SMALL, tasks=("mikasa/RememberColor5",))


ARM = ARMS["memory"]


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        ({"demos": 3}, "out", "demos"),
        ({"tasks": (TASK, "recall-color-5")}, "out", "tasks"),
        ({"knobs": {}}, "out", "knobs"),
        ({"tests": {"": {"delay_ticks": 5}}}, "memory-seed0", "tests"),
        ({"episodes": 5}, "memory-seed0", "episodes"),
        ({"arms": {"memory": replace(ARM, design=replace(ARM.design, m=2))}}, "memory-seed0", "design"),
        ({"arms": {"memory": replace(ARM, settings=replace(SETTINGS, lr=1.0))}}, "memory-seed0", "settings"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_another_plan_made_is_not_taken_for_this_ones(out, change, where, what):
    one = replace(SMALL, arms={"memory": ARM}, episodes=4)
    finished(out, {("memory", 0): [True] * 4})
    table = run(one, out, RECIPE)
    before = table.read_text()
    with pytest.raises(ValueError, match=rf"{where}: expected .* found a run with other {what}; choose another --out"):
        run(replace(one, **change), out, RECIPE)
    assert table.read_text() == before
