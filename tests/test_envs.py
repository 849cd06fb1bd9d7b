"""The tabletop: what its tasks promise, what they refuse, that they repeat to the bit, and the vector environment."""

import os
import subprocess
import sys
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from engram import stats
from engram.envs.tabletop import CAMERAS, TASKS, audit, family, frames, make, scene
from engram.envs.tabletop.expert import expert_action
from engram.envs.tabletop.recall import GRID, JITTER
from engram.envs.tabletop.table import Table
from engram.envs.vector import EnvError, VectorEnv

IDLE = np.zeros(7, np.float32)
RIGHT = np.array([1, 0, 0, 0, 0, 0, -1], np.float32)


@pytest.fixture
def opened():
    """`make`, with everything made closed afterwards."""
    envs = []

    def build(task: str = "recall-color-3", **knobs):
        envs.append(make(task, **knobs))
        return envs[-1]

    yield build
    for env in envs:
        env.close()


def begin(env, seed: int, answer: str | None = None):
    """The observation and info of the first tick of choice, with another answer than the one drawn if given."""
    observation, info = env.reset(seed=seed)
    env.unwrapped.answer = answer or env.unwrapped.answer
    while info["phase"] != "choice":
        observation, *_, info = env.step(IDLE)
    return observation, info


def finish(env, target: str | None = None):
    """The last step of an episode in which the expert goes for `target`."""
    while True:
        step = env.step(expert_action(env, target))
        if step[2] or step[3]:
            return step


def roll(env, seed: int, ticks: int = 14) -> list[np.ndarray]:
    """Everything an episode of random actions shows: observations and the simulator's state, tick by tick."""
    rng, seen = np.random.default_rng(seed), []
    observation, info = env.reset(seed=seed)
    for _ in range(ticks):
        seen += [*observation.values(), env.unwrapped.table.data.qpos.copy(), env.unwrapped.table.data.qvel.copy()]
        observation, _, ended, truncated, info = env.step(rng.uniform(-1, 1, 7).astype(np.float32))
        if ended or truncated:
            break
    return [*seen, *observation.values(), np.array(list(info.values()), dtype=str)]


def same(one, other) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# What a task promises


@pytest.mark.parametrize("task", TASKS)
def test_gymnasium_has_no_objection(task, opened):
    check_env(opened(task).unwrapped, skip_render_check=True)  # which needs a registered environment


@pytest.mark.parametrize("task", [task for task in TASKS if family(task) == "recall"])
def test_expert_succeeds(task):
    assert audit.expert_success(task, episodes=100)["successes"] == 100


def test_expert_succeeds_at_the_ends_of_the_knobs():
    for knobs in ({"delay_ticks": 0, "cue_ticks": 1}, {"delay_ticks": 500}, {"shuffle": False}, {"free_arm": True}):
        assert audit.expert_success("recall-color-9", episodes=10, **knobs)["successes"] == 10


def test_phases_take_the_ticks_they_are_given(opened):
    for cue, delay in ((1, 0), (4, 3), (2, 500)):
        env = opened(cue_ticks=cue, delay_ticks=delay, images=False)
        _, info = env.reset(seed=0)
        phases = [info["phase"]]
        while phases[-1] != "choice":
            phases.append(env.step(IDLE)[4]["phase"])
        assert phases == ["cue"] * cue + ["delay"] * delay + ["choice"]
        assert (info["cue_end"], info["onset"]) == (cue, cue + delay)


def test_ranges_of_ticks_are_drawn_from_both_ends_included(opened):
    env = opened(cue_ticks=(1, 2), delay_ticks=(0, 2), images=False)
    infos = [env.reset(seed=seed)[1] for seed in range(60)]
    assert {info["cue_end"] for info in infos} == {1, 2}
    assert {info["onset"] - info["cue_end"] for info in infos} == {0, 1, 2}


def test_right_cube_ends_the_episode_as_a_success(opened):
    env = opened()
    _, info = begin(env, 3)
    _, reward, ended, truncated, info = finish(env)
    assert (reward, ended, truncated, info["success"], info["choice"]) == (1.0, True, False, True, info["answer"])


def test_wrong_cube_is_final(opened):
    env = opened()
    _, info = begin(env, 3)
    wrong = next(color for color in env.unwrapped.colors if color != info["answer"])
    _, reward, ended, truncated, info = finish(env, wrong)
    assert (reward, ended, truncated, info["success"], info["choice"]) == (0.0, True, False, False, wrong)
    with pytest.raises(ValueError, match="call reset first"):
        env.step(IDLE)


def test_sweep_ends_at_the_first_cube(opened):
    env = opened("recall-color-9", shuffle=False, images=False)
    for seed in range(5):
        begin(env, seed, answer="blue")
        env.unwrapped.table.set_pose(np.array([-scene.REACH, GRID[0], 0.02, 0, 0, 0, 0]))
        ended = False
        while not ended:
            _, _, ended, _, info = env.step(RIGHT)
        assert (info["choice"], info["success"]) == ("red", False)  # red, green, blue lie in this order


def test_indecision_is_truncated(opened):
    env = opened(limit=3, images=False)
    begin(env, 0)
    assert [env.step(IDLE)[3] for _ in range(3)] == [False, False, True]
    with pytest.raises(ValueError, match="call reset first"):
        env.step(IDLE)


@pytest.mark.parametrize("free_arm", [False, True])
def test_actions_before_choice_have_effect_only_with_a_free_arm(free_arm, opened):
    env = opened(cue_ticks=2, delay_ticks=2, free_arm=free_arm, images=False)
    first = env.reset(seed=0)[0]["proprio"]
    for _ in range(4):
        observation, *_, info = env.step(RIGHT)
        assert np.array_equal(observation["proprio"], first) != free_arm
    assert info["phase"] == "choice"
    assert not np.array_equal(env.step(RIGHT)[0]["proprio"], observation["proprio"])


def test_colors_lie_anywhere_unless_told_not_to_be_shuffled(opened):
    for shuffle in (False, True):
        env = opened(shuffle=shuffle, images=False)
        env.reset(seed=0)
        reds = []
        for seed in range(30):
            env.reset(seed=seed)
            reds.append(env.unwrapped.places["red"][:2])
        assert (np.ptp(reds, axis=0).max() > 2 * JITTER) == shuffle


def test_frames_count_what_was_shown(opened):
    for images in (True, False):
        env = opened(images=images)
        assert begin(env, 0)[1]["frames"] == images * (env.unwrapped.tick + 1)


# What it must not tell


def test_pictures_at_choice_do_not_depend_on_the_cue(opened):
    env = opened("recall-color-9")
    for seed in range(5):
        pictures = [begin(env, seed, answer)[0] for answer in ("red", "green", "black")]
        assert same([*pictures[0].values()], [*pictures[1].values()])
        assert same([*pictures[0].values()], [*pictures[2].values()])


def test_start_and_places_do_not_depend_on_the_cue(opened):
    env, drawn, answers = opened(images=False), [], []
    for seed in range(1200):
        observation, info = env.reset(seed=seed)
        drawn.append(np.concatenate([observation["proprio"], *env.unwrapped.places.values(), [info["onset"]]]))
        answers.append(env.unwrapped.colors.index(info["answer"]))
    low, high = stats.wilson(int(audit.probe(np.array(drawn, np.float32), np.array(answers)).sum()), 600, 0.999)
    assert low < 1 / 3 < high


def test_visible_twin_still_shows_the_cue(opened):
    hidden, visible = opened(), opened("recall-color-3-visible")
    red, blue = (begin(visible, 0, answer)[0]["base"] for answer in ("red", "blue"))
    assert not np.array_equal(red, blue)
    assert not np.array_equal(red, begin(hidden, 0, "red")[0]["base"])


def test_audit_finds_chance_and_no_leak(capsys):
    blind = audit.chance("recall-color-3", episodes=150)
    assert blind["ci95"][0] < 1 / 3 < blind["ci95"][1]
    found = audit.leak_probe("recall-color-3", episodes=200)
    assert found["ci95"][0] < found["chance"] < found["ci95"][1]
    assert min(found["cue"], found["visible"]) > 0.5
    assert audit.main(["recall-color-3-visible", "--episodes=5", "--chance=5", "--probe=100"]) == 0
    assert '"accuracy"' in capsys.readouterr().out


def test_probe_reads_a_weak_trace_and_nothing_from_noise():
    rng = np.random.default_rng(0)
    truth, noise = rng.integers(3, size=1000), rng.normal(size=(1000, 200)).astype(np.float32)
    assert 0.25 < audit.probe(noise, truth).mean() < 0.42
    noise[:, 5] += 4 * truth
    assert audit.probe(noise, truth).mean() > 0.6


# The same again


@pytest.mark.parametrize("task", ["recall-color-3", "recall-color-9-visible"])
def test_a_seed_decides_everything_whatever_came_before(task, opened):
    fresh, used = opened(task, free_arm=True), opened(task, free_arm=True)
    roll(used, 7)
    begin(used, 8)
    finish(used)
    assert same(roll(fresh, 1), roll(used, 1))
    assert not same(roll(fresh, 1), roll(used, 2))


def test_pictures_do_not_change_the_episode(opened):
    seen, blind = (roll(opened(images=images), 4) for images in (True, False))
    assert same(seen[2:5], blind[2:5])
    assert np.array_equal(seen[-1][:-1], blind[-1][:-1])  # all but the number of frames
    assert not blind[0].any()


def test_kept_pictures_equal_fresh_ones(opened):
    env = opened("recall-color-5", cue_ticks=2, delay_ticks=2)
    observation, info = env.reset(seed=5)
    over = False
    while not over:
        fresh = Table()  # one a tick, so that it has nothing to keep
        fresh.data.qpos[:] = env.unwrapped.table.data.qpos
        choosing, cue = info["phase"] == "choice", info["answer"] if info["phase"] == "cue" else None
        fresh.place(env.unwrapped.places if choosing else {}, cue)
        assert same([observation[camera] for camera in CAMERAS], list(fresh.images().values()))
        fresh.close()
        observation, _, over, _, info = env.step(expert_action(env))


def test_an_observation_belongs_to_its_receiver(opened):
    env = opened(cue_ticks=2, delay_ticks=0)
    first, _ = env.reset(seed=0)
    before = first["base"].copy()
    first["base"][:] = 0
    assert np.array_equal(env.step(IDLE)[0]["base"], before)


def test_picture_for_people(opened):
    env = opened()
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (256, 256, 3)
    assert picture.std() > 5


def test_random_scenes_repeat_and_their_labels_make_the_same_picture():
    drawn, again = frames.scenes(3, 6), frames.scenes(3, 6)
    assert all(drawn[key].tobytes() == again[key].tobytes() for key in drawn)
    assert not np.array_equal(drawn["base"], frames.scenes(4, 6)["base"])
    table = Table()
    for i in range(6):
        spots = zip(frames.NAMES, drawn["positions"][i], strict=True)
        there = {name: spot for name, spot in spots if not np.isnan(spot).any()}
        twin = (frames.NAMES[drawn["twin_color"][i]], drawn["twin"][i]) if drawn["twin_color"][i] >= 0 else ()
        table.set_pose(drawn["proprio"][i])
        table.place(there, *twin)
        assert (table.images()["base"] != drawn["base"][i]).mean() < 0.002  # the pose was rounded to float32
        for name in there:
            table.place({other: spot for other, spot in there.items() if other != name}, *twin)
            table.set_pose(np.array([0.18, 0.18, 0.22, 0, 0, 0, 0]))
            without = table.images()["base"]
            table.place(there, *twin)
            assert (table.images()["base"] != without).any(), f"scene {i}: {name} is not in the picture"
    table.close()


def test_twins_lie_on_the_table_and_never_on_the_stand():
    drawn = frames.scenes(5, 200)
    has = drawn["twin_color"] >= 0
    assert 0.2 < has.mean() < 0.6
    assert np.isnan(drawn["twin"][~has]).all()
    assert np.isfinite(drawn["positions"][has, drawn["twin_color"][has]]).all()
    assert (np.abs(drawn["twin"][has, :2] - scene.STAND).max(1) > scene.CUBE).all()
    assert (drawn["positions"][has, :, 1] < 0.2).all(where=~np.isnan(drawn["positions"][has, :, 1]))


# What it refuses


@pytest.mark.parametrize(
    "action", [np.full(7, np.nan), np.full(7, np.inf), np.zeros(6), np.zeros((1, 7)), np.array(0.0)]
)
def test_bad_actions(action, opened):
    env = opened(images=False)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="expected an action of 7 finite numbers"):
        env.step(action)


def test_no_step_before_reset(opened):
    with pytest.raises(ValueError, match="call reset first"):
        opened(images=False).step(IDLE)


def test_unknown_names_are_answered_with_the_closest():
    with pytest.raises(ValueError, match=r"expected one of recall-color-3.*did you mean recall-color-5\?"):
        make("recal-colour-5")
    with pytest.raises(ValueError, match=r"unknown knob of recall-color-3.*did you mean delay_ticks\?"):
        make("recall-color-3", delay=3)
    with pytest.raises(ValueError, match="choose one of colors, cue_ticks"):
        make("recall-color-3", zzz=3)


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("colors", 1),
        ("colors", 10),
        ("cue_ticks", 0),
        ("delay_ticks", 501),
        ("delay_ticks", -1),
        ("delay_ticks", (5, 2)),
        ("delay_ticks", (1, 2, 3)),
        ("delay_ticks", True),
        ("limit", 0),
        ("limit", True),
        ("image_size", 8),
    ],
)
def test_knobs_out_of_range(knob, value):
    with pytest.raises(ValueError, match=rf"{knob}: expected"):
        make("recall-color-3", **{knob: value})


def test_a_range_may_come_as_a_list(opened):
    assert opened(delay_ticks=[3, 3], cue_ticks=1, images=False).reset(seed=0)[1]["onset"] == 4


# Many at once


GO, FAIL, DIE = np.arange(3)[:, None]


class Fragile(gymnasium.Env):
    """Counts its steps; an action can make it fail, or take its process down without a word."""

    def __init__(self):
        self.ticks = 0

    def reset(self, *, seed=None, options=None):
        self.ticks = 0
        return seed, {}

    def step(self, action):
        if action == FAIL:
            raise RuntimeError("the gearbox is on fire")
        if action == DIE:
            os._exit(1)
        self.ticks += 1
        return self.ticks, 0.0, False, False, {}


def episodes(workers: int) -> list:
    """What three lanes show that are reset and stepped each in its own time."""
    rng, seen = np.random.default_rng(0), []
    with VectorEnv(partial(make, "recall-color-3", free_arm=True), 3, workers) as envs:
        seen += envs.reset({0: 1, 1: 2, 2: 3}).values()
        for tick in range(6):
            seen += envs.step({lane: rng.uniform(-1, 1, 7) for lane in (2, 0)}).values()
            if tick == 3:
                seen += envs.reset({0: 9}).values()
        seen += envs.step({1: IDLE}).values()
    return [part for one in seen for part in (*one[0].values(), np.array(list(one[-1].values()), dtype=str))]


def test_workers_change_nothing():
    assert same(episodes(0), episodes(2))


@pytest.mark.parametrize("workers", [0, 2])
def test_lanes_are_reset_one_by_one(workers):
    with VectorEnv(Fragile, 3, workers) as envs:
        assert envs.reset({2: 7, 0: 5, 1: 6}) == {2: (7, {}), 0: (5, {}), 1: (6, {})}
        assert [*envs.step({2: GO, 0: GO})] == [2, 0]
        envs.reset({0: 5})
        assert {lane: step[0] for lane, step in envs.step({0: GO, 1: GO, 2: GO}).items()} == {0: 1, 1: 1, 2: 2}


@pytest.mark.parametrize("workers", [0, 2])
def test_failure_names_its_lane_and_leaves_the_others_standing(workers):
    with VectorEnv(Fragile, 3, workers) as envs:
        envs.reset({0: 0, 1: 0, 2: 0})
        with pytest.raises(EnvError, match=r"lane 1 failed(.|\n)*in step(.|\n)*gearbox is on fire") as caught:
            envs.step({0: GO, 1: FAIL, 2: GO})
        assert caught.value.lane == 1
        assert {lane: step[0] for lane, step in envs.step({0: GO, 1: GO, 2: GO}).items()} == {0: 2, 1: 1, 2: 2}


def test_death_of_a_worker_is_an_error_until_it_is_reset():
    with VectorEnv(Fragile, 3, 2) as envs:
        envs.reset({0: 0, 1: 0, 2: 0})
        for _ in range(2):
            with pytest.raises(EnvError, match="lane 1 failed:\nits process ended") as caught:
                envs.step({0: GO, 1: DIE})
            assert caught.value.gone == (1,)
        assert envs.step({0: GO})[0][0] == 3
        envs.reset({1: 5})
        assert {lane: step[0] for lane, step in envs.step({0: GO, 1: GO}).items()} == {0: 4, 1: 1}


@pytest.mark.parametrize("workers", [0, 1])
def test_closing_twice(workers):
    envs = VectorEnv(Fragile, 1, workers)
    envs.close()
    envs.close()


def test_lanes_are_needed():
    for lanes, workers in ((0, 0), (1, -1)):
        with pytest.raises(ValueError, match="expected at least 1 lane and 0 or more workers"):
            VectorEnv(Fragile, lanes, workers)


# What it does not need


def test_torch_is_not_imported():
    modules = "engram.envs.tabletop.recall, engram.envs.tabletop.audit, engram.envs.vector"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_missing_simulator_is_named():
    code = "import sys; sys.modules['mujoco'] = None; import engram.envs.tabletop.recall"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'needs MuJoCo; install it with: pip install "engram-vla[tabletop]"' in done.stderr
