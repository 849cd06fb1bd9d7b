"""The scripted expert of the families order and count: privileged, and a function of nothing but the present state.

Off a pressed button it rises straight up until the next touch would count; to the next one it flies as the expert of
recall does.
"""

import numpy as np

from engram.envs.tabletop.count import BUTTON, DONE
from engram.envs.tabletop.expert import CLOSED, towards

RISE = np.array([0, 0, 1, 0, 0, 0, CLOSED], np.float32)


def order_action(env, order: str | None = None) -> np.ndarray:
    """The action, float32 (7,), of one who presses in `order`, "red-blue" (default: the right one)."""
    state = env.unwrapped.privileged()
    if env.unwrapped.phase != "choice":
        return np.zeros(7, np.float32)
    return _press(state, (order or state["answer"]).split("-")[len(state["pressed"])])


def count_action(env, times: str | None = None) -> np.ndarray:
    """The action, float32 (7,), of one who presses `times` times, "3" (default: the right number), and then white."""
    state = env.unwrapped.privileged()
    if env.unwrapped.phase != "choice":
        return np.zeros(7, np.float32)
    return _press(state, BUTTON if state["presses"] < int(times or state["answer"]) else DONE)


def guess(env, rng: np.random.Generator) -> str:
    """One of all answers: what an expert goes by that did not see the cue. Its success is chance."""
    return str(rng.choice(env.unwrapped.answers))


def _press(state: dict, color: str) -> np.ndarray:
    return towards(state["pose"], state["places"][color]) if state["clear"] else RISE
