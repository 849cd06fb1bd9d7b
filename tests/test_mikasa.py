"""MIKASA-Robo: names, groups and what is missing, everywhere; the tasks themselves where the benchmark is installed."""

from importlib.util import find_spec

import numpy as np
import pytest

from engram import envs
from engram.envs import mikasa

pytestmark = pytest.mark.filterwarnings("ignore:::mani_skill", "ignore:::sapien")  # theirs, not ours to mend
installed = pytest.mark.skipif(find_spec("mikasa_robo_suite") is None, reason="needs `make mikasa`")


def test_the_groups_are_the_paper_s():
    assert [len(group) for group in mikasa.GROUPS.values()] == [5, 11, 7]
    assert sum(len(set(group)) for group in mikasa.GROUPS.values()) == 23
    assert all(task in mikasa.TASKS for group in (*mikasa.GROUPS.values(), mikasa.CANONICAL) for task in group)


def test_an_unknown_task_is_answered_with_the_closest():
    with pytest.raises(
        ValueError, match=r"unknown MIKASA-Robo task: .*found RememberColour5; did you mean RememberColor5"
    ):
        envs.make("mikasa/RememberColour5")


def test_without_the_benchmark_the_command_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"mikasa/RememberColor5 needs mani-skill .* run: make mikasa"):
        envs.make("mikasa/RememberColor5")


@pytest.fixture(scope="module")
def env():
    with mikasa.make("RememberColor3", images=False) as env:
        yield env


@installed
def test_the_arm_stays_until_the_candidates_come(env):
    _, info = env.reset(seed=mikasa.FIRST_SEED)
    poses, phases = [], []
    while info["phase"] != "choice":
        frame, _, _, _, info = env.step(np.ones(7))
        poses.append(frame["proprio"])
        phases.append(info["phase"])
    assert np.ptp(poses, axis=0)[:6].max() < 1e-3  # all zeros lets the fingers go half-way
    assert (phases.count("cue") + 1, len(phases)) == (info["cue_end"], info["onset"])
    moved, *_ = env.step(np.ones(7))
    assert np.abs(moved["proprio"] - poses[-1]).max() > 0.01


@installed
def test_a_seed_decides_an_episode(env):
    def episode(seed: int) -> np.ndarray:
        env.reset(seed=seed)
        return np.stack([env.step(np.full(7, 0.3))[0]["proprio"] for _ in range(12)])

    np.testing.assert_array_equal(episode(5), episode(5))
    assert not np.array_equal(episode(5), episode(6))


@installed
@pytest.mark.parametrize(
    "task", ["RememberColor3", "FindImposterShape3", "TakeItBack", "InterceptMedium", "RotateLenientPos"]
)
def test_an_expert_solves_its_task(task):
    with mikasa.make(task, images=False) as env:
        solved = []
        for seed in range(3):
            _, info = env.reset(seed=seed)
            over = False
            while not over:
                _, _, terminated, truncated, info = env.step(envs.expert(f"mikasa/{task}")(env))
                over = terminated or truncated
            solved.append(info["success"])
    assert sum(solved) >= 2


@installed
def test_the_shell_game_says_that_its_mug_is_missing(tmp_path, monkeypatch):
    from engram.envs.mikasa import task

    monkeypatch.setattr(task, "ASSET_DIR", tmp_path)
    with pytest.raises(ImportError, match=r"ShellGameTouch: assets missing: .*download_asset ycb"):
        mikasa.make("ShellGameTouch")


@pytest.mark.parametrize("task", ["BlinkCountButtonPressEasy", "ShellGameShuffleColorLampTouch", "BatteriesCheckerHard"])
def test_tasks_whose_light_bulb_is_in_no_package_say_so(task):
    with pytest.raises(mikasa.MissingAssetsError, match=rf"mikasa/{task}: assets missing: .*light_bulb"):
        mikasa.make(task)


@installed
def test_what_is_recorded_names_the_right_candidate_and_the_one_touched(env):
    for seed in range(3):
        _, info = env.reset(seed=seed)
        over = False
        while not over:
            _, _, terminated, truncated, info = env.step(envs.expert("mikasa/RememberColor3")(env))
            over = terminated or truncated
        assert info["success"]
        assert info["choice"] == info["answer"]
        assert info["answer"] in ("red", "lime", "blue")
