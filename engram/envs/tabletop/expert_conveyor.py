"""The scripted experts of the family conveyor: one that knows the state, and one that knows only what is in view.

Both wait where the hand is until it is time to set out; where the hand waits says nothing of where the cube is.
"""

import numpy as np

from engram.envs.tabletop import scene
from engram.envs.tabletop.table import DELTA

STEP, GAIN = 0.038, 0.8  # most metres per tick and axis; share of the distance covered
HOVER, GRASP, SLOPE = 0.072, 0.028, 1.0  # heights of the fingertip above and beside the cube; how the funnel opens
ALIGNED = 0.010  # metres: this near, along x and y, the hand goes down
CLOSE = 0.040  # height from which on it closes
WAIT = np.array([0, 0, 0, 0, 0, 0, 1], np.float32)
LIFT = np.array([0, 0, 0.8, 0, 0, 0, -1], np.float32)


def conveyor_action(env) -> np.ndarray:
    """The action, float32 (7,), of one who always knows where the cube is and how fast it moves."""
    state = env.unwrapped.privileged()
    if state["held"]:
        return LIFT
    return catch(state["pose"], state["cube"], state["speed"]) if state["due"] else WAIT


def reactive_action(env) -> np.ndarray:
    """The same for one who sets out when the cube comes out of the tunnel, whose speed it knows from then on."""
    state = env.unwrapped.privileged()
    if state["held"]:
        return LIFT
    out = state["cube"][0] > scene.TUNNEL[1] - scene.CUBE / 2
    return catch(state["pose"], state["cube"], state["speed"]) if out else WAIT


def catch(pose: np.ndarray, cube: np.ndarray, speed: float) -> np.ndarray:
    """Meet and follow a cube at (3,), metres, that moves `speed` metres a tick along x; from a pose (7,)."""
    ahead = cube[0] + speed  # where it is after this action
    # Above the mouth of the tunnel it falls into step with what is below, so that it can go down as soon as there is
    # room for the fingers behind the cube: when they are as low as the roof, a third of the action is over.
    goal = np.array([max(ahead, scene.MEET - speed), cube[1]])
    far = goal - pose[:2]
    flat = np.clip(np.where(np.abs(far) < STEP, far, GAIN * far), -STEP, STEP)
    left = float(np.abs(far - flat).max())  # after this action
    off = float(np.abs(cube[:2] - pose[:2]).max())
    there = max(left, off) < ALIGNED and cube[0] + speed / 3 >= scene.MEET
    reference = GRASP if there else min(scene.CRUISE, HOVER + SLOPE * left)
    fall = np.clip(reference - pose[2], -STEP, STEP)
    closed = off < ALIGNED and pose[2] < CLOSE
    turn = np.clip(-0.5 * pose[3:6] / DELTA[3:], -1, 1)
    return np.concatenate([flat / DELTA[:2], [fall / DELTA[2]], turn, [-1.0 if closed else 1.0]]).astype(np.float32)
