"""The command line: wrong input ends with one sentence, exit code 2, and nothing touched; help helps."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fakes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from test_data import FRAMES, VIDEO, edit_column, edit_info, record

from engram import train
from engram.cli import _knobs, main
from engram.data.normalise import Normaliser
from engram.policies import checkpoint
from engram.policies.build import Design, build
from engram.quickstart import Plan, settle
from engram.rollout import EpisodeError
from engram.rollout.checkpoint import evaluate_checkpoint

SPEC = replace(fakes.SPEC, height=64, width=64)  # what the tabletop gives
SMALL = ["--design.m=2", "--design.chunk=2", "--design.trained=all", "--settings.start=scratch"]
SHORT = ["--settings.updates=6", "--settings.slots=2", "--settings.ticks=3", "--settings.save=2", "--settings.log=1"]
QUICK = ["--episodes=1", "--lanes=1", "--workers=0"]
COMMANDS = ("demos", "train", "train-world", "eval", "suite", "export", "report", "quickstart", "study", "bench")
SITTING = {"seconds": 0, "simulator_share": None}  # differ from sitting to sitting


@pytest.fixture
def demos(tmp_path) -> Path:
    return record(tmp_path / "demos", (4, 3), SPEC)


@pytest.fixture
def policy(tmp_path) -> Path:
    """The checkpoint of a policy for the tabletop, with random weights."""
    return saved(tmp_path / "run" / "checkpoint")


def saved(folder: Path, spec=SPEC, design: Design | None = None) -> Path:
    torch.manual_seed(0)
    design, action = design or Design(m=2), Normaliser(torch.zeros(7), torch.ones(7))
    checkpoint.save_pretrained(build(design, spec, action), design, folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder; decoded images are a cache and do not count."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def refused(capsys, tmp_path):
    """Runs a command that must be refused and returns what it said: one line, all of stderr but for progress bars."""

    def run(*arguments: object, progress: bool = False, touches: str = "nothing") -> str:
        before = contents(tmp_path)
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        after = {name: data for name, data in contents(tmp_path).items() if not name.startswith(touches)}
        assert end.value.code == 2
        assert after == before
        return sentence(capsys.readouterr().err, progress)

    return run


def sentence(said: str, progress: bool = False) -> str:
    *above, last = said.splitlines()
    assert progress or not above
    assert last.startswith("engram: ")
    assert said.count("engram: ") == 1
    assert "Traceback" not in said
    return last.removeprefix("engram: ")


def training(demos: Path, out: Path, *more: object) -> list[str]:
    return [
        "train",
        "--data",
        str(demos),
        "--out",
        str(out),
        *SMALL,
        *SHORT,
        "--settings.no-tensorboard",
        *map(str, more),
    ]


class TestEnvironment:
    def test_unknown(self, refused, policy, tmp_path):
        said = r"unknown environment: expected one of recall-.*, found recall-colour-3; did you mean recall-color-3\?"
        assert re.fullmatch(said, refused("demos", "recall-colour-3", "--out", tmp_path / "new"))
        assert re.fullmatch(said, refused("eval", policy, "--task", "recall-colour-3"))

    def test_unknown_knob(self, refused, policy, tmp_path):
        said = refused("eval", policy, "--task", "recall-color-3", "--knobs", "delay_tick=3")
        assert re.search(r"unknown knob of recall-color-3: expected one of .*, found delay_tick; did you", said)
        arguments = ("demos", "recall-color-3", "--out", tmp_path / "new", "--knobs", "colour=3")
        assert re.search(r"unknown knob .*, found colour; did you mean colors\?", refused(*arguments))

    @pytest.mark.parametrize("knob", ["delay_ticks", "delay_ticks:3", ""])
    def test_malformed_knob(self, refused, tmp_path, knob):
        said = refused("demos", "recall-color-3", "--out", tmp_path / "new", "--knobs", knob)
        assert said.startswith(f"knobs: expected NAME=VALUE, found {knob!r}; e.g. ")

    @pytest.mark.parametrize(
        "knob",
        ["delay_ticks=501", "delay_ticks=-1", "delay_ticks=[0,1,2]", "delay_ticks=[9,3]", "colors=1", "cue_ticks=0"],
    )
    def test_impossible_knob(self, refused, tmp_path, knob):
        said = refused("demos", "recall-color-3", "--out", tmp_path / "new", "--knobs", knob)
        assert re.match(rf"{knob.partition('=')[0]}: expected .*, found ", said)

    def test_what_a_knob_may_be(self):
        given = ("shuffle=False", "visible=true", "delay_ticks=[0,20]", "colors=3", "render_mode=rgb_array")
        assert _knobs(given) == {
            "shuffle": False, "visible": True, "delay_ticks": (0, 20), "colors": 3, "render_mode": "rgb_array"
        }  # fmt: skip

    def test_other_resolution(self, refused, policy):
        said = refused("eval", policy, "--task", "recall-color-3", "--knobs", "image_size=96", *QUICK)
        assert re.match("environment recall-color-3: expected height 64, found 96; use ", said)

    def test_other_cameras(self, refused, tmp_path):
        policy = saved(tmp_path / "run" / "checkpoint", replace(SPEC, cameras=("front", "wrist")))
        said = refused("eval", policy, "--task", "recall-color-3", *QUICK)
        assert re.match(r"environment .*: expected cameras \('front', 'wrist'\), found \('wrist',\); use ", said)


class TestCheckpoint:
    """More kinds of damage are in test_checkpoint.py."""

    def test_of_another_policy(self, refused, policy):
        (policy / "config.json").write_text('{"architectures": ["Gr00tN1d6"]}')
        said = refused("eval", policy, "--task", "recall-color-3")
        assert "expected an Engram checkpoint of format 1, found a file of something else; give" in said

    def test_no_checkpoint(self, refused, tmp_path):
        said = refused("eval", tmp_path / "nowhere", "--task", "recall-color-3")
        assert "nowhere: expected a checkpoint folder with config.json, found none; give" in said

    def test_missing_memory(self, refused, policy):
        tensors = load_file(policy / "model.safetensors")
        del tensors["memory.initial"]
        save_file(tensors, policy / "model.safetensors")
        assert "tensor memory.initial: expected shape (2, 128) of float32, found none" in refused(
            "eval", policy, "--task", "recall-color-3"
        )

    def test_misshaped_memory(self, refused, policy):
        tensors = load_file(policy / "model.safetensors") | {"memory.initial": torch.zeros(64, 128)}
        save_file(tensors, policy / "model.safetensors")
        said = refused("eval", policy, "--task", "recall-color-3")
        assert "tensor memory.initial: expected shape (2, 128) of float32, found shape (64, 128)" in said

    def test_cut_short(self, refused, policy):
        path = policy / "model.safetensors"
        path.write_bytes(path.read_bytes()[:5000])
        assert "model.safetensors: expected readable safetensors, found" in refused("eval", policy, "--task", "x")

    def test_that_plans_nan(self, refused, policy):
        tensors = load_file(policy / "model.safetensors")
        tensors["head.action.mean"][0] = float("nan")
        save_file(tensors, policy / "model.safetensors")
        arguments = ("eval", policy, "--task", "recall-color-3", *QUICK)
        assert "expected finite actions, found NaN" in refused(*arguments, progress=True, touches="run/eval")

    @pytest.mark.parametrize(
        ("option", "said"),
        [
            ("--episodes=0", "seeds: expected at least one episode, found none; ask for 1 or more"),
            ("--seeds=-3", "seeds: expected 0 or more, found -3; give another first seed"),
            ("--lanes=0", "lanes: expected 1 or more, found 0; give another number"),
            ("--workers=-1", "workers: expected 0 or more, found -1; give another number"),
            ("--videos=-1", "videos: expected 0 or more, found -1; give another number"),
            ("--attention=-1", "attention: expected 0 or more, found -1; give another number"),
            (
                "--attention=2",
                "attention: expected no intervention beside it, since these films show memory left alone, found swap; "
                "leave one of the two out",
            ),
            ("--at=0", "swap: expected a tick >= 1, found 0; memory holds nothing at tick 0"),
        ],
    )
    def test_what_cannot_be_played(self, refused, policy, option, said):
        """A swap plays its donors first: not even they are."""
        arguments = ("eval", policy, "--task", "recall-color-3", "--intervention=swap", option)
        assert refused(*arguments) == said

    def test_a_tick_without_an_intervention(self, refused, policy):
        said = refused("eval", policy, "--task", "recall-color-3", "--at=5")
        assert said == "at: expected an intervention that begins at tick 5, found none; name one, or give no tick"

    @pytest.mark.parametrize("replan", [0, 5])
    def test_replan(self, refused, policy, replan):
        said = refused("eval", policy, "--task", "recall-color-3", "--replan", replan)
        assert said == f"replan: expected 1 to 4 ticks (the chunk), found {replan}"

    @pytest.mark.parametrize("ensemble", [-0.1, 1.5])
    def test_ensemble(self, refused, policy, ensemble):
        said = refused("eval", policy, "--task", "recall-color-3", f"--ensemble={ensemble}")
        assert said == f"ensemble: expected a weight from 0 to 1, found {ensemble}"


def test_an_evaluation_from_checkpoint_to_summary(policy, tmp_path, capsys):
    """A swap of two short episodes, which plays its donors first; said again, it plays nothing again."""
    knobs = ("cue_ticks=1", "delay_ticks=1", "limit=3")
    options = ("--task=recall-color-3", "--intervention=swap", "--episodes=2", "--workers=1", "--videos=1")
    main(["eval", str(policy), *options, "--knobs", *knobs])
    summary = json.loads(capsys.readouterr().out)
    assert (summary["intervention"], summary["episodes"], summary["errors"], summary["ticks"]) == ("swap", 2, 0, 10)
    assert summary["counters"] == {"observations": 10, "plans": 10, "writes": 10, "renders": 10}

    swap = f"recall-color-3-run-swap-{'-'.join(knobs)}"
    made = contents(policy.parent / "eval")
    assert {f"{swap}.jsonl", f"{swap}.settings.json", f"{swap}.video/3000000.mp4"} <= made.keys()
    assert {f"{swap}-donors.jsonl", f"{swap}-donors.onset/3000001.safetensors"} <= made.keys()
    first, second = (json.loads(line) for line in made[f"{swap}.jsonl"].splitlines())
    assert (first["seed"], first["donor_seed"], first["onset"], first["intervened"]) == (3000000, 3000001, 2, 3)
    assert (second["donor_answer"], second["answer"]) == (first["answer"], first["donor_answer"])

    main(["eval", str(policy), *options, "--knobs", *knobs])
    assert {**json.loads(capsys.readouterr().out), **SITTING} == {**summary, **SITTING}
    assert contents(policy.parent / "eval") == made

    donors = policy.parent / f"eval/{swap}-donors.jsonl"
    with pytest.raises(ValueError, match=r"donors .*: expected knobs {}, found {'cue_ticks': 1"):
        evaluate_checkpoint(policy, "recall-color-3", range(2), intervention="swap", donors=donors)


BRIEF = ("--task=recall-color-3", "--workers=0", "--lanes=2", "--knobs", "cue_ticks=1", "delay_ticks=1", "limit=3")


def test_where_the_policy_looks_is_filmed_and_reported(policy, tmp_path):
    films = policy.parent / "eval/recall-color-3-run-none-cue_ticks=1-delay_ticks=1-limit=3.video"
    films.mkdir(parents=True)
    (films / "attention-3000000.mp4").write_text("of a removed evaluation")
    main(["eval", str(policy), "--episodes=3", "--attention=2", "--videos=1", *BRIEF])
    first = contents(films)
    assert sorted(first) == ["3000000.mp4", "attention-3000000.mp4", "attention-3000001.mp4"]
    assert first["attention-3000000.mp4"] != b"of a removed evaluation"

    times = {path.name: path.stat().st_mtime_ns for path in films.iterdir()}
    main(["eval", str(policy), "--episodes=3", "--attention=3", *BRIEF])
    assert times.items() < {path.name: path.stat().st_mtime_ns for path in films.iterdir()}.items()

    main(["report", str(policy.parent)])
    page = (policy.parent / "report.html").read_text()
    task = "recall-color-3 cue_ticks=1 delay_ticks=1 limit=3"
    assert f"<h1>Results on {task}</h1>" in page
    assert page.count(f"run, {task}, seed 300000") == 2 * 3  # each film and what it says to those who hear the page
    assert page.count('src="data:video/mp4;base64,') == 4


def test_a_policy_that_cannot_be_looked_into_plays_nothing(refused, tmp_path):
    policy = saved(tmp_path / "run" / "checkpoint", design=Design(memory="first-frame"))
    said = refused("eval", policy, "--episodes=1", "--attention=1", *BRIEF)
    assert re.match(r"expected a policy of memory tokens \(.*\), found Before; attention films are drawn for", said)


def test_other_settings_and_seeds_have_files_of_their_own(policy, monkeypatch):
    """More episodes have not: they are added to those of the same first seed."""
    files = []
    monkeypatch.setattr("engram.rollout.checkpoint.evaluate", lambda *given, **_: files.append(given[3].name) or {})
    for option in (
        "--episodes=2",
        "--episodes=3",
        "--at=2",
        "--at=3",
        "--replan=2",
        "--seeds=2000000",
        "--knobs=limit=3",
    ):
        kind = "zero" if "at" in option else "none"
        main(["eval", str(policy), "--task=recall-color-3", f"--intervention={kind}", option])
    assert files == [
        f"recall-color-3-run-{mark}.jsonl"
        for mark in ("none", "none", "zero@2", "zero@3", "none-replan=2", "none-seeds=2000000", "none-limit=3")
    ]


def three_cameras(root: Path) -> str:
    record(root, (4, 3), replace(SPEC, cameras=("base", "wrist", "left")))
    return r"pretrained weights: expected cameras \('base', 'wrist'\), .*, found cameras \('base', 'wrist', 'left'\)"


def wrong_shape(root: Path) -> str:
    edit_info(root, features=features(root, "action", shape=[6]))
    return "expected 6 numbers per row in action, as meta/info.json says, found 49 numbers in 7 rows"


def wrong_dtype(root: Path) -> str:
    edit_column(root, "action", pa.array([[1] * 7] * 7, pa.list_(pa.int64(), 7)))
    return "expected floating point numbers in action, found "


def wrong_dtype_in_info(root: Path) -> str:
    edit_info(root, features=features(root, "action", dtype="int64"))
    return r"expected float32 \(D,\) for action, found int64 \(7,\)"


def features(root: Path, key: str, **changes) -> dict:
    found = json.loads((root / "meta/info.json").read_text())["features"]
    return found | {key: found[key] | changes}


def no_episodes(root: Path) -> str:
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path, partitioning=None).slice(0, 0), path)
    return "expected at least one episode, found none; record demonstrations first"


def cut(root: Path, file: str) -> None:
    (root / file).write_bytes((root / file).read_bytes()[:-600])


def short_video(root: Path) -> str:
    cut(root, VIDEO)
    return "file-000.mp4: expected a video of 7 frames, found "


def short_parquet(root: Path) -> str:
    cut(root, FRAMES)
    return "file-000.parquet: expected a readable parquet file, found "


def nan_action(root: Path) -> str:
    actions = np.zeros((7, 7), np.float32)
    actions[5, 2] = np.nan
    edit_column(root, "action", pa.FixedSizeListArray.from_arrays(actions.ravel(), 7))
    return "expected finite numbers in action, found NaN, infinity or null; drop or repair those episodes"


def no_data(root: Path) -> str:
    (root / "meta/info.json").unlink()
    return "meta/info.json: expected a LeRobotDataset v3.0, found no such file"


class TestData:
    """More kinds of damage are in test_data.py."""

    @pytest.mark.parametrize(
        "harm",
        [wrong_shape, wrong_dtype, wrong_dtype_in_info, no_episodes, short_video, short_parquet, nan_action, no_data],
    )
    def test_refused(self, refused, demos, tmp_path, harm):
        expected = harm(demos)
        assert re.search(expected, refused(*training(demos, tmp_path / "run")))

    def test_cameras_that_the_pretrained_weights_do_not_know(self, refused, tmp_path):
        expected = three_cameras(tmp_path / "demos")
        said = refused("train", "--data", tmp_path / "demos", "--out", tmp_path / "run")
        assert re.match(expected, said)

    def test_two_of_different_cameras(self, refused, demos, tmp_path):
        other = record(tmp_path / "other", (4,), replace(SPEC, cameras=("base", "left")))
        said = refused("train", "--data", demos, other, "--out", tmp_path / "run")
        assert re.search(r"other: expected cameras \('base', 'wrist'\), found \('base', 'left'\); use ", said)

    def test_demonstrations_into_a_folder_in_use(self, refused, demos):
        said = refused("demos", "recall-color-3", "--out", demos)
        assert said.endswith(": expected a new or empty directory, found an existing one; choose another or remove it")


class TestSettings:
    @pytest.mark.parametrize(
        ("option", "expected"),
        [
            ("--design.tbptt=0", r"K \(tbptt\): expected at least 1 tick, .* found 0"),
            ("--design.tbptt=-2", r"K \(tbptt\): expected at least 1 tick, .* found -2"),
            ("--design.m=-1", "m: expected 0 or more memory tokens, found -1; choose"),
            ("--design.rule=medium", "rule: expected 'plain', 'gated' or an ema rate in .*, found 'medium'"),
            ("--design.rule=1.5", "rule: expected .*, found 1.5"),
            ("--design.frames=1", "frames: expected at least 2"),
            ("--design.chunk=0", "chunk: expected at least 1"),
            ("--design.replan=3", r"replan: expected 1 to 2 ticks \(the chunk\), found 3"),
            ("--settings.updates=0", "updates: expected at least 1, found 0"),
            ("--settings.save=0", "save: expected at least 1, found 0"),
            ("--settings.log=-1", "log: expected at least 1, found -1"),
            ("--settings.slots=0", "slots: expected at least 1, found 0"),
            ("--settings.ticks=0", "ticks: expected at least 1, or 'episode', found 0"),
            ("--settings.seed=-1", "seed: expected at least 0, found -1"),
            ("--settings.workers=-1", "workers: expected at least 0, found -1"),
            ("--settings.warmup=-5", "warmup: expected at least 0, found -5"),
            ("--settings.lr=-1", "lr: expected a finite number above 0, found -1.0"),
            ("--settings.lr=nan", "lr: expected a finite number above 0, found nan"),
            ("--settings.weight-decay=-1", "weight_decay: expected a finite number, 0 or more, found -1.0"),
            ("--settings.clip=-1", "clip: expected a number above 0, or inf for no bound, found -1.0"),
            ("--design.tbptt=2", r"K \(--design.tbptt\): expected a divisor of the window \(.*ticks 3\), .* found 2"),
            ("--design.tbptt=9", r"K \(--design.tbptt\): expected a divisor of the window \(.*ticks 3\), .* found 9"),
            ("--settings.loader=shuffled", "loader: expected 'episodic' for a policy with a memory, found 'shuffled'"),
        ],
    )
    def test_refused(self, refused, demos, tmp_path, option, expected):
        assert re.match(expected, refused(*training(demos, tmp_path / "run", option)))

    @pytest.mark.parametrize("option", ["--design.m=many", "--preset=papre", "--design.mask=none", "--speed=3"])
    def test_the_parser_refuses_what_does_not_parse(self, capsys, option):
        with pytest.raises(SystemExit) as end:
            main(["train", "--data", "a", "--out", "b", option])
        assert end.value.code == 2
        assert option.partition("=")[0] in capsys.readouterr().err

    def test_diverged(self, refused, demos, tmp_path):
        arguments = training(demos, tmp_path / "run", "--settings.lr=1e30", "--settings.warmup=0")
        said = refused(*arguments, progress=True, touches="run")
        assert re.match(r"update \d: expected finite gradients, found a norm of (nan|inf); lower --settings.lr", said)
        checkpoints = [path for path in (tmp_path / "run").rglob("model.safetensors")]
        assert all(value.isfinite().all() for path in checkpoints for value in load_file(path).values())


class TestOut:
    """A folder that holds something else is left as it is."""

    def test_another_run(self, refused, demos, tmp_path):
        main(training(demos, tmp_path / "run"))
        said = refused(*training(demos, tmp_path / "run", "--design.m=3"), progress=True)
        assert "run: expected a new folder or this run, found a run with other design; choose" in said

    def test_another_quickstart(self, refused, tmp_path):
        settle(Plan(), tmp_path / "quickstart")
        said = refused("quickstart", "--out", tmp_path / "quickstart", "--updates=5", "--demos=30")
        assert re.search("expected a new folder or this plan, found a run with other demos, settings; choose", said)

    def test_a_swap_of_one(self, refused, policy):
        said = refused("eval", policy, "--task", "recall-color-3", "--intervention", "swap", "--episodes", 1)
        assert said.startswith("swap: expected 2 or more episodes, found 1; ask for more")

    def test_half_a_plan(self, refused, tmp_path):
        (tmp_path / "plan.json").write_text('{"task": "reca')
        said = refused("quickstart", "--out", tmp_path)
        assert re.search(r"plan.json: expected the plan of this folder in JSON, found .*; delete the folder", said)

    def test_damaged_counters(self, refused, demos, tmp_path):
        main(training(demos, tmp_path / "run"))
        (tmp_path / "run/checkpoint/training.json").write_text("{}")
        said = refused(*training(demos, tmp_path / "run"), progress=True)
        assert "training.json: expected ['clipped', " in said

    def test_a_model_of_another_library(self, refused, demos, tmp_path):
        (tmp_path / "model").mkdir()
        (tmp_path / "model/config.json").write_text('{"architectures": ["Gr00tN1d6"]}')
        said = refused(*training(demos, tmp_path / "model"), progress=True)
        assert "model: expected a new folder or this run, found a config.json of something else; choose" in said

    def test_a_checkpoint_that_is_no_run(self, refused, demos, policy):
        said = refused(*training(demos, policy.parent), progress=True)
        assert "checkpoint: expected a run to go on with, found something else (no training.json); choose" in said

    def test_a_damaged_run(self, refused, demos, tmp_path):
        main(training(demos, tmp_path / "run"))
        (tmp_path / "run/checkpoint/training.safetensors").write_bytes(b"half of it")
        said = refused(*training(demos, tmp_path / "run"), progress=True)
        assert "training.safetensors: expected readable safetensors, found" in said

    def test_a_file(self, refused, demos, tmp_path):
        (tmp_path / "run").write_text("precious")
        said = refused(*training(demos, tmp_path / "run"), progress=True)
        assert "run: expected to read or write it, found: File exists; see that" in said

    def test_another_evaluation(self, refused, policy, tmp_path):
        (tmp_path / "episodes.jsonl").write_text("")
        (tmp_path / "episodes.settings.json").write_text('{"task": "recall-color-5"}')
        arguments = ("eval", policy, "--task", "recall-color-3", "--out", tmp_path / "episodes.jsonl")
        said = refused(*arguments)
        assert re.search("holds episodes of another setting: expected .*, found .*; choose a new file", said)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["OSError", "SafetensorError"],
)
def test_disk_full_during_a_checkpoint(refused, demos, tmp_path, monkeypatch, error):
    """The second checkpoint does not fit: the first is still there, and the run goes on from it."""
    run, write, steps = tmp_path / "run", train.save_file, []

    def full(tensors, path):
        steps.append(path)
        if len(steps) == 2:
            Path(path).write_bytes(b"half of it")
            raise error
        write(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(train, "save_file", full)
        said = refused(*training(demos, run), progress=True, touches="run")
    assert re.search("checkpoint: expected to write a checkpoint, found: .*No space left on device.*: make room", said)
    assert [path.name for path in run.iterdir() if path.is_dir()] == ["checkpoint"]
    assert json.loads((run / "checkpoint/training.json").read_text())["step"] == 2
    main(training(demos, run))
    main(training(demos, tmp_path / "straight"))
    assert weights(run) == weights(tmp_path / "straight")


def test_disk_full_anywhere_else(refused, policy, monkeypatch):
    for error, expected in {
        OSError(28, "No space left on device", "some.mp4"): "some.mp4: .*, found: No space left on device; make room",
        OSError("Error writing bytes to file"): "Error writing bytes to file",
        SafetensorError("I/O error: No space left on device"): "tensors: expected .*, found: .* on device; make room",
    }.items():

        def full(*_, error=error, **__):
            raise error

        monkeypatch.setattr("engram.rollout.checkpoint.evaluate_checkpoint", full)
        assert re.match(expected, refused("eval", policy, "--task", "recall-color-3"))


def weights(run: Path) -> bytes:
    return (run / "checkpoint/model.safetensors").read_bytes()


def test_no_room_for_metrics(refused, demos, tmp_path, monkeypatch):
    def full(self, *_):
        raise OSError(28, "No space left on device", str(self.out / "metrics.jsonl"))

    monkeypatch.setattr(train.Run, "_log", full)
    said = refused(*training(demos, tmp_path / "run"), progress=True, touches="run")
    assert "metrics.jsonl: expected to read or write it, found: No space left on device; make room and run" in said


# A process that stops at its fourth update and says so. It must be killed.
WAITS = """
import sys
from engram.cli import main
from engram.train import Run
update = Run.update
def waiting(self, window):
    if self.step == 3:
        print("at the fourth update", flush=True)
        sys.stdin.read()
    return update(self, window)
Run.update = waiting
main(sys.argv[1:])
"""
# A process whose files may not grow beyond 1 MB: the disk is full as far as it knows.
FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
from engram.cli import main
main(sys.argv[1:])
"""


def test_killed_then_out_of_room_then_finished(demos, tmp_path):
    """As it happens: kill -9 between two checkpoints, a full disk, then room. The bits are those of a quiet run."""
    command, environment = training(demos, tmp_path / "run"), os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", WAITS, *command], env=environment, text=True, **pipes) as child:
        assert child.stdout.readline() == "at the fourth update\n"
        child.kill()
    assert child.returncode == -9
    before = contents(tmp_path / "run/checkpoint")
    assert json.loads(before["training.json"])["step"] == 2

    full = subprocess.run([sys.executable, "-c", FULL, *command], env=environment, capture_output=True, text=True)
    assert full.returncode == 2
    assert "expected to write a checkpoint, found: " in sentence(full.stderr, progress=True)
    assert contents(tmp_path / "run/checkpoint") == before

    main(command)
    main(training(demos, tmp_path / "straight"))
    assert weights(tmp_path / "run") == weights(tmp_path / "straight")
    sittings = json.loads((tmp_path / "run/config.json").read_text())["sittings"]
    assert [sitting["from_update"] for sitting in sittings] == [0, 2, 2]


def test_preset_of_the_paper(demos, tmp_path, capsys):
    short = ["--settings.updates=2", "--settings.slots=2", "--settings.no-tensorboard"]
    main(["train", "--data", str(demos), "--out", str(tmp_path / "run"), "--preset=paper", *short])
    assert '"updates": 2' in capsys.readouterr().out
    config = json.loads((tmp_path / "run/config.json").read_text())
    asked = {"memory": "recurrent", "m": 64, "rule": "plain", "tbptt": 2, "mask": "full", "chunk": 8, "loss": "l1"}
    assert asked.items() <= config["design"].items()
    assert (config["settings"]["ticks"], config["settings"]["updates"]) == (2, 2)
    assert {"frames": 7, "episodes": 2, "tasks": ["task 0", "task 1"]}.items() <= config["data"].items()
    (sitting,) = config["sittings"]
    assert sitting["commit"]
    assert torch.__version__.startswith(sitting["versions"]["torch"].partition("+")[0])
    assert checkpoint.load(tmp_path / "run/checkpoint")[1].m == 64


class TestOtherCommands:
    def test_report_of_a_folder_without_summary(self, refused, tmp_path):
        said = refused("report", tmp_path)
        assert said.startswith(f"{tmp_path}: expected a run (summary.json, eval/*.jsonl or metrics.jsonl), found none")

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (None, "expected a recipe .*, found no file"),
            ("x = 1\n", "expected a STUDY of type .*, found none"),
            ("STUDY = 5\n", "expected a STUDY of type engram.study.Study, found int"),
        ],
    )
    def test_recipe_without_study(self, refused, tmp_path, text, expected):
        if text is not None:
            (tmp_path / "recipe.py").write_text(text)
        assert re.search(rf"recipe.py: {expected}; see recipes/", refused("study", tmp_path / "recipe.py"))

    def test_all_rows_and_one(self, refused):
        assert refused("bench", "P4", "--all") == "--all: expected no row and no --against beside it, found 'P4'"

    def test_unknown_bench_row(self, refused):
        assert re.fullmatch(r"benchmark row: expected one of P1, .*, found 'P99'; choose .*", refused("bench", "P99"))

    def test_missing_optional_package(self, refused, tmp_path, monkeypatch):
        for name in [name for name in sys.modules if name.startswith("engram.envs.tabletop.")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "mujoco", None)
        said = refused("demos", "recall-color-3", "--out", tmp_path / "new")
        assert said == 'envs/tabletop needs MuJoCo; install it with: pip install "engram-vla[tabletop]"'


class TestTraceback:
    """Errors are one sentence, and whole for who asks."""

    @pytest.fixture(params=[(ValueError("expected a, found b; do c"), 2), (EpisodeError("2 of 9 failed"), 1)])
    def error(self, request, monkeypatch) -> tuple[Exception, int]:
        def broken(*_, **__):
            raise request.param[0]

        monkeypatch.setattr("engram.rollout.checkpoint.evaluate_checkpoint", broken)
        return request.param

    @pytest.mark.parametrize("asked", [None, "0", "1"])
    def test_is_shown_when_asked_for(self, error, asked, monkeypatch, capsys):
        monkeypatch.delenv("ENGRAM_TRACEBACK", raising=False)
        if asked is not None:
            monkeypatch.setenv("ENGRAM_TRACEBACK", asked)
        with pytest.raises(SystemExit) as end:
            main(["eval", "nowhere", "--task", "x"])
        said = capsys.readouterr().err
        assert end.value.code == error[1]
        assert str(error[0]) in said.splitlines()[-1]
        assert ("in broken" in said) == (asked == "1")
        assert ("set ENGRAM_TRACEBACK=1" in said) == isinstance(error[0], EpisodeError)

    def test_of_a_defect_is_never_hidden(self, monkeypatch):
        def broken(*_, **__):
            raise RuntimeError("shapes do not fit")

        monkeypatch.setattr("engram.rollout.checkpoint.evaluate_checkpoint", broken)
        with pytest.raises(RuntimeError, match="shapes do not fit"):
            main(["eval", "nowhere", "--task", "x"])


class TestHelp:
    @pytest.mark.parametrize("command", [None, *COMMANDS])
    def test_help(self, capsys, command):
        with pytest.raises(SystemExit) as end:
            main([command, "--help"] if command else ["--help"])
        assert end.value.code == 0
        said = capsys.readouterr()
        assert said.err == ""
        assert all(name in said.out for name in ((command,) if command else COMMANDS))

    @pytest.mark.parametrize("command", [None, *COMMANDS])
    def test_nonsense(self, capsys, command):
        with pytest.raises(SystemExit) as end:
            main([command, "--nonsense"] if command else ["nonsense"])
        assert end.value.code == 2
        assert "--help" in capsys.readouterr().err

    def test_nothing_heavy_is_loaded(self):
        heavy = ("torch", "mujoco", "matplotlib", "pyarrow", "av", "gymnasium")
        code = f"import sys, engram.cli; print([name for name in {heavy} if name in sys.modules])"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("report nowhere", r"nowhere: expected a run \(summary.json, .*\), found none of these; run `engram eval`"),
        ("demos recall-color-3 --out new --knobs delay_ticks=soon", "delay_ticks: expected 0 to 500, .* found 'soon'"),
        ("demos recall-color-3 --out new --knobs shuffle=no", "shuffle: expected true or false, found 'no'"),
    ],
)
def test_the_command_itself(tmp_path, arguments, expected):
    """Through the installed program, and without the type checks of the tests."""
    program = Path(sys.executable).with_name("engram")
    done = subprocess.run([program, *arguments.split()], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(expected, sentence(done.stderr))
    assert not list(tmp_path.iterdir())


def test_help_that_nobody_reads_to_its_end_is_no_error():
    program = [sys.executable, "-c", "from engram.cli import main; main(['train', '--help'])"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        child.stdout.close()
        assert child.stderr.read() == ""
    assert child.returncode == 0
