"""The scripted expert of the recall family: privileged, smooth, and a function of nothing but the present state.

It flies towards its cube at cruise height while its height reference falls with the distance that is left, a funnel,
so that it never sweeps over another cube; every action depends on pose and target alone, so that a policy that sees
both can imitate it from any state.
"""

import numpy as np

from engram.envs.tabletop import scene
from engram.envs.tabletop.table import DELTA

GAIN, FASTEST = 0.35, 0.035  # share of the distance covered per tick; most metres per tick
HOVER, SLOPE = 0.06, 1.5  # height of the fingertip right above the cube; how steeply the funnel opens
ABOVE = 0.012  # within this distance (metres, horizontally) the hand goes straight down
CLOSED = -1.0


def expert_action(env, target: str | None = None) -> np.ndarray:
    """The action, float32 (7,), towards `target` (default: the right colour); zeros while nothing may be touched."""
    state = env.unwrapped.privileged()
    if env.unwrapped.phase != "choice":
        return np.zeros(7, np.float32)
    return towards(state["pose"], state["places"][target or state["answer"]])


def towards(pose: np.ndarray, place: tuple[float, float, float]) -> np.ndarray:
    """The funnel: from a pose (7,) to the top of a cube at `place` (metres)."""
    flat = np.array(place[:2]) - pose[:2]
    distance = float(np.linalg.norm(flat))
    move = flat * GAIN * min(1.0, FASTEST / max(GAIN * distance, 1e-9))
    reference = min(scene.CRUISE, HOVER + SLOPE * max(0.0, distance - ABOVE))
    fall = -0.02 if distance < ABOVE else float(np.clip(0.6 * (reference - pose[2]), -0.03, 0.03))
    turn = np.clip(-0.5 * pose[3:6] / DELTA[3:], -1, 1)
    return np.concatenate([move / DELTA[:2], [fall / DELTA[2]], turn, [CLOSED]]).astype(np.float32)


def blind_choice(env, rng: np.random.Generator) -> str:
    """A candidate at random: the target of an expert that did not see the cue. Its success is chance."""
    return str(rng.choice(sorted(env.unwrapped.privileged()["places"])))
