"""Suites: what is played, resumed, missing, broken; the means, the table and the page. On the recall game."""

import json
from dataclasses import replace
from pathlib import Path

import game
import pytest
from doubles import CuePolicy

from engram import suite
from engram.envs.mikasa import MissingAssetsError
from engram.rollout import EpisodeError
from engram.rollout.evaluate import evaluate
from engram.suite import Suite, mikasa_suite, run

GAMES = Suite(
    "games",
    {"short": ("g/easy", "g/hard"), "long": ("g/far", "g/lost"), "all": ("g/easy", "g/far")},
    4_242_424_242,
    "theirs",
    {"g/easy": (0.5, "a board"), "g/lost": (0.9, "a board")},
    {"theirs": {"short": 0.25, "long": 0.75}},
    "no rules",
)


def make(task: str, **knobs) -> game.RecallGame:
    if task == "g/lost":
        raise MissingAssetsError("g/lost: assets missing: expected a board, found none; get it with: buy a board")
    return game.RecallGame(delay=20 if task == "g/far" else 5, **knobs)


@pytest.fixture
def played(monkeypatch) -> list[tuple[str, int]]:
    """Plays a double instead of a checkpoint; what was played, task and number of new episodes."""
    calls: list[tuple[str, int]] = []

    def double(checkpoint: Path, task: str, seeds, out: Path, **options) -> dict:
        before = out.read_text().count("\n") if out.exists() else 0
        options = {key: options[key] for key in ("lanes", "knobs")} | {"video_first": options["videos"]}
        options["workers"] = int("dies_on" in options["knobs"])
        result = evaluate(CuePolicy(), task, seeds, out, policy_name="double", make=make, progress=False, **options)
        calls.append((task, out.read_text().count("\n") - before))
        return result

    monkeypatch.setattr(suite, "evaluate_checkpoint", double)
    monkeypatch.setattr(suite, "load", lambda folder: (CuePolicy(replan=2 if folder.name == "other" else 1), None))
    return calls


def test_a_suite_plays_every_task_once_and_names_what_is_missing(played, tmp_path):
    found = run(GAMES, Path("run/checkpoint"), tmp_path, episodes=3, videos=1)
    assert played == [("g/easy", 3), ("g/hard", 3), ("g/far", 3)]
    assert list(found["missing"]) == ["g/lost"]
    assert [(row["group"], row["tasks"], row["of"], row["success"]) for row in found["groups"]] == [
        ("short", 2, 2, 1.0), ("long", 1, 2, 1.0), ("all", 2, 2, 1.0),
    ]  # fmt: skip
    assert found["groups"][1]["missing"] == ["g/lost"]
    # The mean they report; theirs of two tasks less what is known of the one not played; not known.
    assert [row["theirs"] for row in found["groups"]] == [0.25, pytest.approx(0.6), None]
    table, page = (tmp_path / "suite.md").read_text(), (tmp_path / "report.html").read_text()
    assert "mean of 1 of 2 tasks" in table
    assert "buy a board" in table
    assert "buy a board" in page
    assert page.count("data:video/mp4") == 3
    assert "<h1>run on games</h1>" in page


def test_a_suite_goes_on_where_it_was_stopped(played, tmp_path):
    run(GAMES, Path("c"), tmp_path, ["short"], episodes=2)
    first = json.loads((tmp_path / "summary.json").read_text())
    run(GAMES, Path("c"), tmp_path, ["g/far", "easy"], episodes=2)
    found = run(GAMES, Path("c"), tmp_path, episodes=2)
    assert played == [
        ("g/easy", 2),
        ("g/hard", 2),
        ("g/far", 2),
        ("g/easy", 0),
        ("g/easy", 0),
        ("g/hard", 0),
        ("g/far", 0),
    ]
    assert found["tasks"][:2] == first["tasks"]


def test_an_unknown_task_is_answered_with_the_closest(tmp_path):
    with pytest.raises(
        ValueError, match=r"unknown group or task of mikasa: .*found RememberColour5; did you mean RememberC"
    ):
        run(mikasa_suite(), Path("c"), tmp_path / "out", ["RememberColour5"])
    assert not (tmp_path / "out").exists()


def test_playing_one_task_again_keeps_the_others_in_the_table(played, tmp_path):
    run(GAMES, Path("c"), tmp_path, episodes=2)
    found = run(GAMES, Path("c"), tmp_path, ["hard"], episodes=2, videos=1)
    assert [row["task"] for row in found["tasks"]] == ["g/easy", "g/hard", "g/far"]
    assert list(found["missing"]) == ["g/lost"]  # it was looked for in the first sitting
    assert "buy a board" in (tmp_path / "suite.md").read_text()


def test_assets_that_have_come_are_not_missing_any_more(played, tmp_path, monkeypatch):
    run(GAMES, Path("c"), tmp_path, episodes=2)
    monkeypatch.setattr(f"{__name__}.make", lambda task, **knobs: game.RecallGame(**knobs))
    assert run(GAMES, Path("c"), tmp_path, ["g/lost"], episodes=2)["missing"] == {}


def test_what_was_waited_for_simulators_is_kept(played, tmp_path):
    first = run(GAMES, Path("c"), tmp_path, ["short"], episodes=2)
    again = run(GAMES, Path("c"), tmp_path, ["short"], episodes=2)
    assert all(0 < row["simulator_share"] <= 1 for row in first["tasks"])
    assert again["tasks"] == first["tasks"]


def test_a_folder_is_one_policy_s(played, tmp_path):
    run(GAMES, Path("c"), tmp_path, ["easy"], episodes=2)
    with pytest.raises(ValueError, match="other policy_sha256"):
        run(GAMES, Path("other"), tmp_path, ["hard"], episodes=2)


def test_other_knobs_belong_into_another_folder(played, tmp_path):
    run(GAMES, Path("c"), tmp_path, ["easy"], episodes=2)
    with pytest.raises(ValueError, match="other knobs"):
        run(GAMES, Path("c"), tmp_path, ["easy"], episodes=2, knobs={"cue": 2})


def test_broken_episodes_are_errors_and_the_other_tasks_are_played(played, tmp_path):
    broken = (GAMES.first_seed + 1,)
    with pytest.raises(EpisodeError, match=r"g/easy: 1 of 3 episodes ended in an error(.|\n)*g/hard"):
        run(GAMES, Path("c"), tmp_path, episodes=3, knobs={"fails_on": broken})
    found = json.loads((tmp_path / "summary.json").read_text())
    assert [(row["task"], row["episodes"], row["errors"]) for row in found["tasks"]] == [
        ("g/easy", 2, 1), ("g/hard", 2, 1), ("g/far", 2, 1),
    ]  # fmt: skip
    assert found["counters"]["errors"] == 3
    assert found["groups"] == []  # nothing was played to the end


def test_a_suite_outlives_its_simulator(played, tmp_path):
    whole = run(GAMES, Path("c"), tmp_path / "whole", ["short"], episodes=2)
    knobs = {"dies_on": GAMES.first_seed, "grave": str(tmp_path / "grave")}
    killed = run(GAMES, Path("c"), tmp_path / "killed", ["short"], episodes=2, knobs=knobs)
    assert killed["counters"].pop("deaths") in (1, 2)  # with the other episode of that process, if it had begun
    assert killed["counters"] == {key: count for key, count in whole["counters"].items() if key != "deaths"}
    assert [row["successes"] for row in killed["tasks"]] == [row["successes"] for row in whole["tasks"]]


def test_a_table_says_where_it_was_simulated(played, tmp_path, monkeypatch):
    monkeypatch.setattr(suite.mikasa, "_gpu", lambda: True)
    assert "drawn on a GPU" in mikasa_suite().protocol
    asked = mikasa_suite("cpu")
    assert (asked.device, "drawn on a CPU" in asked.protocol) == ("cpu", True)
    monkeypatch.setenv("ENGRAM_MIKASA_DEVICE", "cpu")
    assert mikasa_suite().device == "cpu"
    run(GAMES, Path("c"), tmp_path, ["easy"], episodes=1)
    table = json.loads((tmp_path / "suite.json").read_text())
    suite.publish(tmp_path, json.loads((tmp_path / "summary.json").read_text()) | {"knobs": {"device": "cpu"}}, GAMES)
    assert "--device" not in table["recipe"]
    assert json.loads((tmp_path / "suite.json").read_text())["recipe"].endswith("--device cpu")


def test_the_mikasa_suite_is_the_protocol():
    found = mikasa_suite()
    assert {group: len(tasks) for group, tasks in found.groups.items()} == {
        "train": 5, "matched": 11, "novel": 7, "canonical": 5,
    }  # fmt: skip
    assert len(found.tasks) == 23
    assert found.first_seed == 4_242_424_242
    assert set(found.published) <= set(found.tasks)
    played = [task for task in found.groups["matched"] if not task.startswith("mikasa/ShellGame")]
    assert suite._of_reference(found, "matched", played) == pytest.approx(0.23 * 11 / 9)  # two zeros are known
    assert suite._of_reference(found, "train", found.groups["train"]) == 0.84
    assert suite._of_reference(found, "canonical", found.groups["canonical"]) == pytest.approx(0.562)
    assert replace(found, groups={"train": found.groups["train"]}).tasks[0] == "mikasa/ShellGamePush"
