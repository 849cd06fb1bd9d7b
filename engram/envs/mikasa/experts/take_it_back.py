"""TakeItBack: grasp the cube with a hand tilted forward, drag it to the goal, and drag it back without letting go.

The goal lies beyond the reach of a hand that points straight down; tilted by half a radian the hand reaches it.
"""

import numpy as np
from mani_skill.envs.sapien_env import BaseEnv

from engram.envs.mikasa.experts import motion

TILTED = motion.leaning(0.55)  # radians
GAIN, FASTEST = 8.0, 0.75  # of the approach: action per metre that is left, and the most it asks for
PULL, DRAG = 7.0, 0.7  # the same while the cube is held
LOW, LIFT = 0.022, 0.03  # metres: height of the fingertips that grasp; height while dragging
SLOPE, CRUISE, SPOUT = 2.0, 0.12, 0.012  # the funnel: steepness, most metres above LOW, radius of its spout
DEEP = 0.05  # metres from the goal's centre to which the cube is carried on, although 0.08 would do
CLOSE = 0.02  # metres from the cube's centre, horizontally and in height, within which the fingers close


def action(env: BaseEnv) -> np.ndarray:
    """Towards the cube while it is not held; then with it to the goal and, once that was reached, to its start."""
    cube, hand = motion.array(env.cube.pose.p), motion.tcp(env)
    turn = motion.turning(env, TILTED)
    if motion.holding(env, cube - hand):
        return motion.move(_drag(env, cube, hand), turn)
    away = float(np.hypot(*(cube - hand)[:2]))
    close = away < CLOSE and abs(hand[2] - cube[2]) < CLOSE
    way = cube - hand
    way[2] = LOW + motion.funnel(away, SLOPE, CRUISE, SPOUT) - hand[2]
    return motion.move(motion.capped(GAIN * way, FASTEST), turn, motion.CLOSED if close else motion.OPEN)


def _drag(env: BaseEnv, cube: np.ndarray, hand: np.ndarray) -> np.ndarray:
    velocity = motion.array(env.cube.linear_velocity)
    back = bool(env.goal_reached_status[0]) and not _going_in(env, cube, velocity)
    way = motion.array((env.initial_region if back else env.goal_region).pose.p) - cube
    way[2] = LIFT - hand[2]
    return motion.eased(motion.capped(PULL * way, DRAG), velocity)


def _going_in(env: BaseEnv, cube: np.ndarray, velocity: np.ndarray) -> bool:
    """Whether the cube is still on its way to the goal's middle. One who turns where the goal counts as reached teaches
    a policy to turn there, and a policy that turns a little too early stands still before it (dev/LOG.md)."""
    way = (motion.array(env.goal_region.pose.p) - cube)[:2]
    return DEEP < float(np.hypot(*way)) < env.GOAL_RADIUS and float(velocity[:2] @ way) > 0
