"""The shell game of MIKASA-Robo, with a stand-in for its mug: phases, answers, pictures, and the scripted experts."""

import numpy as np
import pytest

from engram import envs
from engram.envs import mikasa

pytest.importorskip("mikasa_robo_suite", reason="needs `make mikasa`")  # before the mug, which needs what that brings
import mug  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:::mani_skill", "ignore:::sapien")  # theirs, not ours to mend
SEEDS = {"ShellGameTouch": (2_000_002, 2_000_004, 2_000_005)}  # cues of 1 to 3 ticks; after longer ones cups slide


@pytest.fixture(autouse=True)
def _mugs(tmp_path, monkeypatch):
    mug.use(monkeypatch, mug.furnish(tmp_path))


def by_its_expert(env, seed: int) -> list[dict]:
    """What is said at each tick of an episode that the task's expert plays."""
    _, info = env.reset(seed=seed)
    told, over = [info], False
    while not over:
        *_, terminated, truncated, info = env.step(envs.expert(f"mikasa/{env.unwrapped.name}")(env))
        told.append(info)
        over = terminated or truncated
    return told


@pytest.mark.parametrize("task", mikasa.SHELL)
def test_an_expert_solves_its_task_and_says_which_cup(task):
    assert mikasa.there(task)
    with mikasa.make(task, images=False) as env:
        ends = [by_its_expert(env, seed)[-1] for seed in SEEDS.get(task, range(3))]
    assert sum(info["success"] for info in ends) >= 2
    for info in ends:
        assert info["answer"] in ("left", "center", "right")
        assert not info["success"] or info["choice"] == info["answer"]


@pytest.mark.parametrize("task", mikasa.SHELL)
def test_the_choice_begins_as_the_cups_come(task):
    with mikasa.make(task, images=False) as env:
        _, info = env.reset(seed=2_000_003)
        hands, cups = [], []
        while info["phase"] == "cue":
            cups.append(env.sim.mug_center.pose.p[0, 2].item())
            frame, *_, info = env.step(np.ones(7))
            hands.append(frame["proprio"][:3])
        assert info["tick"] == info["onset"] == info["cue_end"] == len(cups)
        assert min(cups) > 100  # metres
        assert env.sim.mug_center.pose.p[0, 2].item() < 1
        assert np.ptp(hands, axis=0).max() < 1e-3


def test_the_cue_shows_the_ball_and_no_cup():
    try:
        with mikasa.make("ShellGameTouch") as env:
            cue, info = env.reset(seed=2_000_004)
            while info["tick"] < info["onset"] + 2:  # cups come from below the table's top
                choice, *_, info = env.step(np.zeros(7))
    except ImportError as error:
        if "renders with Vulkan" not in str(error):
            raise
        pytest.skip(str(error))
    assert balls(cue["base"]) > 5
    assert cups(cue["base"]) == 0
    assert balls(choice["base"]) == 0
    assert cups(choice["base"]) > 200


def balls(picture: np.ndarray) -> int:
    """Pixels of pure red."""
    return int(((picture[..., 0] > 120) & (picture[..., 1:] < 40).all(-1)).sum())


def cups(picture: np.ndarray) -> int:
    """Pixels of the mug's blue."""
    return int((picture[..., 2] > picture[..., 0] + 30.0).sum())
