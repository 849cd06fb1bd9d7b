"""The tabletop's families order, count and conveyor: contracts that all keep, and what a press and a grasp are."""

import hashlib
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from engram import demos, envs, stats
from engram.data.seeds import DEMOS
from engram.envs.noise import Noise
from engram.envs.tabletop import CAMERAS, PUSHED, TASKS, audit, expert_files, family, make, scene
from engram.envs.tabletop.conveyor import LIFTED
from engram.envs.tabletop.count import BUTTON
from engram.envs.tabletop.expert_conveyor import conveyor_action, reactive_action
from engram.envs.tabletop.expert_press import count_action, order_action
from engram.envs.tabletop.families import FAMILIES
from engram.envs.tabletop.presses import CLEAR
from engram.envs.tabletop.table import ON_STAND
from engram.rollout.chance import chance

NEW = [task for task in TASKS if family(task) != "recall"]
ONE_EACH = ["order-3", "count-3", "conveyor-medium"]
IDLE = np.zeros(7, np.float32)
AWAY = np.array([0.18, 0.18, 0.22, 0, 0, 0, 0])
MIDDLE = {"red": (0.0, 0.0, 0.025), "green": (0.12, 0.0, 0.025), "white": (0.12, 0.0, 0.025)}


@pytest.fixture
def opened():
    """`make`, without pictures unless asked, with everything made closed afterwards."""
    made = []

    def build(task: str, images: bool = False, **knobs):
        made.append(make(task, images=images, **knobs).unwrapped)
        return made[-1]

    yield build
    for env in made:
        env.close()


def begin(env, seed: int):
    """The observation and info of the first tick of choice."""
    observation, info = env.reset(seed=seed)
    while info["phase"] != "choice":
        observation, *_, info = env.step(IDLE)
    return observation, info


def finish(env, act):
    """The last step of an episode that `act` plays."""
    while True:
        step = env.step(act(env))
        if step[2] or step[3]:
            return step


def go(x: float = 0.0, y: float = 0.0, z: float = 0.0, gripper: float = -1.0) -> np.ndarray:
    """The action that moves the hand by so many metres."""
    return np.array([x / 0.04, y / 0.04, z / 0.04, 0, 0, 0, gripper], np.float32)


def above(env, color: str, height: float = 0.08) -> None:
    """Put the hand above a button, or beside and above it."""
    env.table.set_pose(np.array([*env.places[color][:2], height, 0, 0, 0, 0]))


def press(env, color: str):
    """Come down on a button from above; the step that touched it."""
    above(env, color)
    env.step(go())  # it has risen clear
    while True:
        step = env.step(go(z=-0.03))
        if env.table.touching() is not None:
            return step


def on_stand(env) -> str | None:
    """The colour that the cue shows."""
    table = env.table
    if not np.allclose(table.data.mocap_pos[table.model.body("cue").mocapid[0]], ON_STAND):
        return None
    shown = table.model.geom_rgba[table.model.geom("cue").id, :3]
    return next(name for name, rgb in scene.COLORS.items() if np.allclose(rgb, shown))


def in_row(env) -> int:
    """How many cubes stand in the row."""
    bodies = [env.table.model.body(i) for i in range(env.table.model.nbody)]
    row = [body.mocapid[0] for body in bodies if body.name.startswith("row-")]
    return int((env.table.data.mocap_pos[row, 2] > 0).sum())


def roll(env, seed: int, ticks: int = 25) -> list[np.ndarray]:
    """Everything that an episode shows in which the expert is disturbed throughout."""
    noise, seen = Noise(np.random.default_rng(seed), 0.5, ticks=1000), []
    observation, info = env.reset(seed=seed)
    for _ in range(ticks):
        seen += [*observation.values(), env.table.data.qpos.copy(), env.table.data.mocap_pos.copy()]
        observation, _, ended, truncated, info = env.step(noise(FAMILIES[family_of(env)].expert(env)))
        if ended or truncated:
            break
    return [*seen, *observation.values(), np.array(list(info.values()), dtype=str)]


def family_of(env) -> str:
    return type(env).__name__.lower()


def same(one, other) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# What all families keep


@pytest.mark.parametrize("task", NEW)
def test_expert_succeeds(task):
    assert audit.expert_success(task, episodes=8)["successes"] == 8


@pytest.mark.parametrize(
    ("task", "knobs"),
    [
        ("order-4", {"buttons": 5, "cue_ticks": 1, "gap_ticks": 0, "delay_ticks": 0}),
        ("order-2", {"delay_ticks": 100, "shuffle": False, "free_arm": True}),
        ("count-5", {"most": 6, "cue_ticks": 1, "gap_ticks": 1, "delay_ticks": 0}),
        ("count-2", {"delay_ticks": 100, "shuffle": False, "free_arm": True}),
        ("conveyor-slow", {"speed": (0.1, 0.1), "limit": 60}),
        ("conveyor-fast", {"speed": [0.7, 0.7]}),
    ],
)
def test_expert_succeeds_at_the_ends_of_the_knobs(task, knobs):
    assert audit.expert_success(task, episodes=3, **knobs)["successes"] == 3


@pytest.mark.parametrize("task", ONE_EACH)
def test_expert_survives_the_noise_of_demonstrations(task):
    with make(task, images=False) as env:
        played = [demos.play(env, envs.expert(task), DEMOS + i, 0.3, envs.pushed_ticks(task)) for i in range(8)]
    assert None not in played


@pytest.mark.parametrize("task", ONE_EACH)
def test_a_seed_decides_everything_whatever_came_before(task, opened):
    fresh, used = opened(task, images=True), opened(task, images=True)
    roll(used, 7)
    assert same(roll(fresh, 1), roll(used, 1))
    assert not same(roll(fresh, 1), roll(used, 2))


@pytest.mark.parametrize("task", ONE_EACH)
def test_all_families_tell_the_same_things(task, opened):
    _, info = opened(task).reset(seed=0)
    _, known = opened("recall-color-3").reset(seed=0)
    assert list(info) == list(known)
    assert info["answer"] in opened(task).answers
    assert (info["choice"], info["success"]) == (None, False)


def test_instructions_differ_in_several_words():
    words = [set(each.env.instruction.split()) for each in FAMILIES.values()]
    assert all(len(one - other) >= 3 for one, other in permutations(words, 2))


@pytest.mark.parametrize("task", ONE_EACH)
def test_chance_knows_all_families(task, tmp_path):
    assert chance(tmp_path / "chance.json", task, 10, seed0=0)["episodes"] == 10


@pytest.mark.parametrize("task", ["order-2-visible", "conveyor-medium-visible"])
def test_audit_knows_all_families(task):
    assert audit.main([task, "--episodes=2", "--chance=2", "--probe=80"]) == 0


@pytest.mark.parametrize("task", NEW)
def test_the_hash_of_an_expert_is_of_its_familys_files(task):
    files = expert_files(task)
    assert envs.expert(task) is FAMILIES[family(task)].expert
    assert envs.expert_sha256(task) == hashlib.sha256(b"".join(map(Path.read_bytes, files))).hexdigest()
    assert FAMILIES[family(task)].expert.__module__.endswith(files[0].stem)
    assert envs.expert_sha256(task) != envs.expert_sha256("recall-color-3")
    assert envs.pushed_ticks(task) == PUSHED[family(task)]


@pytest.mark.parametrize(
    ("task", "knob", "value"),
    [
        ("order-2", "buttons", 1),
        ("order-2", "buttons", 6),
        ("order-2", "gap_ticks", -1),
        ("order-2", "cue_ticks", 0),
        ("count-2", "most", 1),
        ("count-2", "most", 7),
        ("count-2", "gap_ticks", 0),
        ("conveyor-slow", "speed", (0.3, 0.2)),
        ("conveyor-slow", "speed", (0.0, 0.2)),
        ("conveyor-slow", "speed", (0.2, 0.3, 0.4)),
        *[(task, knob, value) for task in ONE_EACH for knob, value in (("limit", 0), ("image_size", 8))],
    ],
)
def test_knobs_out_of_range(task, knob, value):
    with pytest.raises(ValueError, match=rf"{knob}: expected"):
        make(task, **{knob: value})


def test_unknown_names_are_answered_with_the_closest():
    with pytest.raises(ValueError, match=r"did you mean conveyor-medium\?"):
        make("conveyor-middle")
    with pytest.raises(ValueError, match=r"unknown knob of count-2.*did you mean gap_ticks\?"):
        make("count-2", gap_tick=3)
    for look_up in (envs.expert, envs.expert_sha256, envs.pushed_ticks):
        with pytest.raises(ValueError, match=r"did you mean order-3\?"):
            look_up("order-33")


# What they must not tell


@pytest.mark.parametrize("task", ONE_EACH)
def test_pictures_at_choice_do_not_depend_on_the_answer(task, opened):
    env = opened(task, images=True)
    for seed in range(3):
        seen = []
        for other in (False, True):
            env.reset(seed=seed)
            if other and task == "order-3":
                env.order = env.order[::-1]
            elif other and task == "count-3":
                env.times = 1 + env.times % 3
            elif other:
                env.cube[1] *= -1
            while env.phase != "choice":
                observation, *_ = env.step(IDLE)
            seen.append(list(observation.values()))
        assert same(*seen)


@pytest.mark.parametrize("task", ["order-2", "count-2", "conveyor-slow"])
def test_what_else_is_drawn_does_not_depend_on_the_answer(task, opened):
    env, drawn, answers = opened(task), [], []
    for seed in range(1200):
        observation, info = env.reset(seed=seed)
        start = list(env.places.values()) if task != "conveyor-slow" else [[abs(env.cube[1]), env.speed]]
        drawn.append(np.concatenate([observation["proprio"], *start, [info["cue_end"], info["onset"]]]))
        answers.append(env.answers.index(info["answer"]))
    low, high = stats.wilson(int(audit.probe(np.array(drawn, np.float32), np.array(answers)).sum()), 600, 0.999)
    assert low < 1 / 2 < high


def test_guessing_gets_chance():
    for task, expected in (("order-3", 1 / 6), ("count-3", 1 / 3)):
        low, high = audit.chance(task, episodes=40)["ci95"]
        assert low < expected < high


@pytest.mark.parametrize("task", ["conveyor-medium", "conveyor-fast"])
def test_reacting_to_what_reappears_is_too_late(task):
    assert audit.chance(task, episodes=40)["successes"] == 0


# Cue and visible twin


def test_order_shows_its_colours_one_after_another(opened):
    env = opened("order-3", cue_ticks=2, gap_ticks=1, delay_ticks=3)
    env.reset(seed=0)
    shown = [on_stand(env)] + [(env.step(IDLE), on_stand(env))[1] for _ in range(10)]
    one, two, three = env.order
    assert shown == [one, one, None, two, two, None, three, three, None, None, None]
    assert (env.cue_end, env.onset, env.answer) == (8, 11, f"{one}-{two}-{three}")


def test_count_flashes_for_as_long_as_the_largest_number_would(opened):
    env = opened("count-3", cue_ticks=2, gap_ticks=1, delay_ticks=0)
    numbers = set()
    for seed in range(12):
        env.reset(seed=seed)
        shown = [on_stand(env) is not None] + [(env.step(IDLE), on_stand(env) is not None)[1] for _ in range(7)]
        assert shown == ([True, True, False] * env.times + [False] * 8)[:8]
        assert (env.cue_end, env.onset) == (8, 8)
        numbers.add(env.times)
    assert numbers == {1, 2, 3}


@pytest.mark.parametrize("task", ["order-3", "count-3"])
def test_visible_twin_shows_what_is_left(task, opened):
    env, hidden = opened(f"{task}-visible"), opened(task)
    for seed in range(4):
        begin(env, seed)
        begin(hidden, seed)
        left = 3 if task == "order-3" else env.times
        colors = env.order if task == "order-3" else [BUTTON] * env.times
        for color in colors:
            assert (in_row(env), in_row(hidden)) == (left, 0)
            press(env, color)
            left -= 1
        assert in_row(env) == 0


def test_visible_conveyor_has_no_tunnel(opened):
    for task, hidden in (("conveyor-medium", True), ("conveyor-medium-visible", False)):
        env = opened(task, images=True)
        begin(env, 0)
        env.table.set_pose(AWAY)
        with_cube = env.table.images()
        env.table.place({})
        assert np.array_equal(with_cube["base"], env.table.images()["base"]) == hidden


# Presses


@pytest.mark.parametrize("task", ["order-3", "count-3"])
def test_a_press_leaves_no_trace_in_the_pictures(task, opened):
    env = opened(task, images=True)
    begin(env, 1)
    env.times = 3
    color = env.order[0] if task == "order-3" else BUTTON
    env.table.set_pose(AWAY)
    before = env.table.images()
    *_, info = press(env, color)
    assert (info["choice"] or env.presses) in (color, 1)
    env.table.set_pose(AWAY)
    assert all(np.array_equal(before[camera], env.table.images()[camera]) for camera in CAMERAS)


def test_a_press_needs_a_release(opened):
    env = opened("count-5")
    begin(env, 0)
    env.times = 5
    press(env, BUTTON)
    assert env.presses == 1
    for _ in range(4):  # resting on it, leaning on it, lifting a little and coming down again
        env.step(go())
        env.step(go(z=-0.04))
        up = CLEAR - 0.005 - env.table.pose[2]
        env.step(go(z=up))
        assert env.table.touching() is None
        env.step(go(z=-0.03))
        assert env.table.touching() == BUTTON
    assert env.presses == 1
    env.step(go(z=0.04))
    env.step(go(z=-0.03))
    env.step(go(z=-0.03))
    assert env.presses == 2


def test_a_touch_from_the_side_is_no_press(opened):
    env = opened("order-2")
    begin(env, 0)
    env.places = MIDDLE
    env.order = ["red", "green"]
    env.table.set_pose(np.array([-0.06, 0, 0.03, 0, 0, 0, 0]))
    touched = [(env.step(go(x=0.02)), env.table.touching())[1] for _ in range(5)]
    assert touched[-1] == "red"
    assert env.pressed == []
    assert finish(env, order_action)[4]["success"]  # it rises, and presses from above


def test_order_ends_at_a_wrong_button_and_at_one_already_pressed(opened):
    env = opened("order-3")
    for wrong in ([1], [0, 0], [0, 2], [0, 1, 0], [0, 1, 1]):
        begin(env, 2)
        for turn in wrong:
            assert not env.over
            _, reward, ended, truncated, info = press(env, env.order[turn])
        assert (reward, ended, truncated, info["success"]) == (0.0, True, False, False)
        assert info["choice"] == "-".join(env.order[turn] for turn in wrong)
        with pytest.raises(ValueError, match="call reset first"):
            env.step(IDLE)


def test_order_is_done_when_all_are_pressed(opened):
    env = opened("order-3")
    begin(env, 2)
    steps = [press(env, color) for color in env.order]
    assert [step[2] for step in steps] == [False, False, True]
    assert [step[1] for step in steps] == [0.0, 0.0, 1.0]
    assert steps[-1][4]["choice"] == steps[-1][4]["answer"] == env.answer


@pytest.mark.parametrize(
    ("presses", "then", "choice"), [(2, "white", "2"), (1, "white", "1"), (0, "white", "0"), (3, None, "3")]
)
def test_count_ends_at_white_and_at_one_too_many(presses, then, choice, opened):
    env = opened("count-3")
    begin(env, 0)
    env.times, env.answer = 2, "2"
    for color in [BUTTON] * presses + [then] * (then is not None):
        assert not env.over
        _, reward, ended, truncated, info = press(env, color)
    assert (ended, truncated, info["choice"]) == (True, False, choice)
    assert (info["success"], reward) == (choice == "2", float(choice == "2"))


def test_a_press_in_time_prolongs_the_episode(opened):
    env = opened("order-2", limit=5)
    begin(env, 0)
    press(env, env.order[0])
    ends = [env.step(go(z=0.04))[2:4] for _ in range(5)]
    assert ends == [(False, False)] * 4 + [(False, True)]


@pytest.mark.parametrize(
    ("act", "target", "task"), [(order_action, "blue-red-green", "order-3"), (count_action, "1", "count-3")]
)
def test_experts_do_what_they_are_told(act, target, task, opened):
    env = opened(task)
    begin(env, 0)
    *_, info = finish(env, lambda env: act(env, target))
    assert target.startswith(info["choice"])


# The grasp


def test_what_is_grasped_moves_with_the_hand_until_it_is_lifted(opened):
    env = opened("conveyor-medium")
    env.reset(seed=0)
    while env.held is None:
        env.step(conveyor_action(env))
    assert env.cube[0] > scene.TUNNEL[1]
    for move in (go(x=-0.02), go(y=-0.01), go(z=0.015)):
        before, hand = env.cube.copy(), env.table.pose[:3]
        _, _, ended, _, info = env.step(move)
        assert np.allclose(env.cube - before, env.table.pose[:3] - hand)
        assert not ended
    _, reward, ended, _, info = env.step(go(z=0.03))
    assert (reward, ended, info["success"], info["choice"]) == (1.0, True, True, info["answer"])
    assert env.cube[2] >= scene.CUBE / 2 + LIFTED


@pytest.mark.parametrize("visible", [False, True])
def test_missing_it_is_a_failure(visible, opened):
    env = opened("conveyor-medium", visible=visible)
    env.reset(seed=0)
    _, reward, ended, truncated, info = finish(env, lambda env: go(gripper=1.0))
    assert (reward, ended, truncated, info["success"], info["choice"]) == (0.0, True, False, False, None)
    assert env.cube[0] > scene.BELT_END


@pytest.mark.parametrize("gripper", [-1.0, 1.0])
def test_knocking_it_is_a_failure(gripper, opened):
    env = opened("conveyor-medium")
    env.reset(seed=0)
    env.table.set_pose(np.array([0.13, env.cube[1], 0.03, 0, 0, 0, (gripper + 1) / 2]))
    _, _, ended, _, info = finish(env, lambda env: go(gripper=gripper))
    assert (ended, info["success"], info["choice"], env.held) == (True, False, info["answer"], None)
    assert env.cube[0] < scene.BELT_END


def test_letting_it_go_is_a_failure(opened):
    env = opened("conveyor-medium")
    env.reset(seed=0)
    while env.held is None:
        env.step(conveyor_action(env))
    _, _, ended, _, info = env.step(go(z=0.03, gripper=1.0))
    assert (ended, info["success"]) == (True, False)


@pytest.mark.parametrize("task", ["conveyor-slow", "conveyor-slow-visible"])
def test_it_cannot_be_had_before_it_is_past_the_tunnel(task, opened):
    env = opened(task)
    env.reset(seed=0)
    env.table.set_pose(np.array([env.cube[0] + 0.02, env.cube[1], 0.03, 0, 0, 0, 1]))
    *_, info = finish(env, lambda env: go(gripper=-1.0))
    assert (env.held, info["success"]) == (None, False)


def test_the_tunnel_holds_the_hand_up(opened):
    env = opened("conveyor-slow")
    env.reset(seed=0)
    env.table.set_pose(np.array([-0.04, 0, 0.08, 0, 0, 0, 0]))
    for _ in range(6):
        env.step(go(z=-0.04))
    assert env.table.pose[2] > 0.04


def test_hidden_is_what_the_tunnel_hides(opened):
    """The answer is told by the pictures before, and after, and at no tick between."""
    env = opened("conveyor-slow", images=True)
    env.reset(seed=1)
    for _ in range(env.onset + 12):
        env.step(IDLE)
        env.table.set_pose(AWAY)
        shown = env.table.images()["base"]
        env.table.place({})
        invisible = np.array_equal(shown, env.table.images()["base"])
        out = max(scene.TUNNEL[0] + scene.CUBE / 2 - env.cube[0], env.cube[0] - scene.TUNNEL[1] + scene.CUBE / 2)
        assert invisible or out > 0
        assert not (invisible and out > 0.01)  # less than a pixel or two need not show


def test_reactive_expert_catches_what_is_slow(opened):
    env = opened("conveyor-slow")
    env.reset(seed=0)
    assert finish(env, reactive_action)[4]["success"]
