"""Is a task what it says? It can be done, a blind choice gets only chance, and pictures do not leak the answer.

`python -m engram.envs.tabletop.audit recall-color-3` prints the three figures and exits with 1 if one is off.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from typing import Any

import gymnasium
import numpy as np

from engram import stats
from engram.envs.tabletop import CAMERAS, TASKS, family, make
from engram.envs.tabletop.families import FAMILIES, Act

IDLE = np.zeros(7, np.float32)
RIDGES = 10.0 ** np.arange(-6, 3)  # candidates of the probe's penalty, as shares of the mean eigenvalue
Row = dict[str, Any]


def expert_success(task: str, episodes: int = 500, seed0: int = 0, **knobs: Any) -> Row:
    """Success of the scripted expert that knows the answer, on seeds seed0 onwards.

    Returns "episodes", "successes", "success" (their share) and its "ci95" (Wilson).
    """
    return _play(task, episodes, seed0, knobs, blind=False)


def chance(task: str, episodes: int = 1000, seed0: int = 0, **knobs: Any) -> Row:
    """Success of the same expert when it guesses what it should remember: what a policy without memory can reach.

    Of recall it guesses the colour, of order the permutation, of count the number; of conveyor it waits where it
    started until the cube is out of the tunnel, and sees its speed then. About six seconds for the default number of
    episodes of recall, of any delay that is not long, and half a minute for the others.
    """
    return _play(task, episodes, seed0, knobs, blind=True)


def leak_probe(task: str, episodes: int = 2000, seed0: int = 0, **knobs: Any) -> Row:
    """What of the answer can be read off the observation at the first tick of choice, and what off a cue's.

    A quadratic ridge classifier on both cameras' pixels and proprioception is fitted on half the episodes and tested
    on the other half. Returns "episodes" (held out), "successes", "accuracy" with its "ci95", "chance" (one over the
    number of answers), and as positive controls the accuracy of the same probe at the first tick of the cue ("cue")
    and at the first tick of choice of the `-visible` twin ("visible"): a probe that sees nothing there says nothing
    about leaks. The first tick of a cue shows all of recall's answer and of conveyor's ("near" or "far"), the first
    colour of order's and nothing of count's.
    """
    seeds = range(seed0, seed0 + episodes)
    env = make(task, **knobs)
    cues, choices, answers = _observe(env, seeds)
    task_itself: Any = env.unwrapped
    names = task_itself.answers
    env.close()
    twin = make(task, **{**knobs, "visible": True})
    shown = _observe(twin, seeds)[1]
    twin.close()
    truth = np.array([names.index(answer) for answer in answers])
    right = probe(choices, truth)
    successes = int(right.sum())
    return {
        "episodes": len(right),
        "successes": successes,
        "accuracy": successes / len(right),
        "ci95": stats.wilson(successes, len(right)),
        "chance": 1 / len(names),
        "cue": float(probe(cues, truth).mean()),
        "visible": float(probe(shown, truth).mean()),
    }


def probe(features: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Fit on the first half of the rows, and say for each of the others whether it is classified right, bool.

    features float32 (episodes, F); truth int (episodes,) from 0. Ridge regression to one-hot targets with the kernel
    (1 + x.y / F)^2 of standardised features; the penalty with the least leave-one-out error on the first half is taken.
    """
    half = len(truth) // 2
    centre, spread = features[:half].mean(0), features[:half].std(0)
    alive = spread > 0  # a pixel that never changes says nothing
    scaled = (features[:, alive] - centre[alive]) / spread[alive]
    kernel = (1 + scaled @ scaled[:half].T / max(1, alive.sum())).astype(np.float64) ** 2
    targets = np.eye(truth.max() + 1)[truth[:half]]
    mean = targets.mean(0)
    weights = _ridge(kernel[:half], targets - mean)
    return (kernel[half:] @ weights + mean).argmax(1) == truth[half:]


def _ridge(kernel: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Dual weights of kernel ridge regression, with the penalty of least leave-one-out error.

    The errors come in closed form: Golub, Heath & Wahba, Technometrics 21 (1979) 215-223.
    """
    values, vectors = np.linalg.eigh(kernel)
    turned = vectors.T @ targets
    best, least = targets, np.inf
    for ridge in RIDGES * values.mean():
        inverse = 1 / (np.maximum(values, 0) + ridge)
        weights = vectors @ (inverse[:, None] * turned)
        error = float(np.mean((weights / (vectors**2 @ inverse)[:, None]) ** 2))
        if error < least:
            best, least = weights, error
    return best


def _play(task: str, episodes: int, seed0: int, knobs: Row, blind: bool) -> Row:
    env, rng = make(task, **{**knobs, "images": False}), np.random.default_rng(seed0)
    players = FAMILIES[family(task)]
    successes = 0
    for seed in range(seed0, seed0 + episodes):
        env.reset(seed=seed)
        successes += _episode(env, players.blind(env, rng) if blind else players.expert)
    env.close()
    interval = stats.wilson(successes, episodes)
    return {"episodes": episodes, "successes": successes, "success": successes / episodes, "ci95": interval}


def _episode(env: gymnasium.Env, act: Act) -> bool:
    """Whether an episode just reset succeeds when `act` plays it."""
    over = False
    while not over:
        *_, ended, truncated, info = env.step(act(env))
        over = ended or truncated
    return info["success"]


def _observe(env: gymnasium.Env, seeds: Iterable[int]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Features of the first tick of the cue and of choice, float32 (episodes, F) each, and the answers."""
    cues, choices, answers = [], [], []
    for seed in seeds:
        observation, info = env.reset(seed=seed)
        cues.append(_features(observation))
        while info["phase"] != "choice":
            observation, *_, info = env.step(IDLE)
        choices.append(_features(observation))
        answers.append(info["answer"])
    return np.stack(cues), np.stack(choices), answers


def _features(observation: dict[str, np.ndarray]) -> np.ndarray:
    pictures = [observation[camera].ravel() for camera in CAMERAS]
    return np.concatenate([*pictures, observation["proprio"]]).astype(np.float32)


def main(arguments: list[str] | None = None) -> int:
    """Print the three figures of a task; 0 if they are as they should be, else 1."""
    parser = argparse.ArgumentParser("python -m engram.envs.tabletop.audit", description=__doc__.splitlines()[0])
    parser.add_argument("task")
    parser.add_argument("--episodes", type=int, default=500, help="of the expert")
    parser.add_argument("--chance", type=int, default=1000, help="episodes of the blind expert")
    parser.add_argument("--probe", type=int, default=2000, help="episodes of the leak probe, half of them held out")
    args = parser.parse_args(arguments)
    expert, blind = expert_success(args.task, args.episodes), chance(args.task, args.chance)
    leak = leak_probe(args.task, args.probe)
    print(json.dumps({"task": args.task, "expert": expert, "chance": blind, "probe": leak}, indent=2))
    low, high = leak["ci95"]
    hidden = low <= leak["chance"] <= high
    return int(expert["success"] < 0.99 or hidden == TASKS[args.task]["visible"])


if __name__ == "__main__":
    sys.exit(main())
