"""TakeItBack: grasp the cube with a hand tilted forward, drag it to the goal, and drag it back without letting go.

The goal lies beyond the reach of a hand that points straight down; tilted by half a radian the hand reaches it.
"""

import numpy as np
from mani_skill.envs.sapien_env import BaseEnv

from engram.envs.mikasa.experts import motion

TILTED = motion.leaning(0.55)  # radians
GAIN, FASTEST = 8.0, 0.75  # of the approach: action per metre that is left, and the most it asks for
PULL, DRAG = 5.0, 0.6  # the same while the cube is held
LOW, LIFT = 0.022, 0.03  # metres: height of the fingertips that grasp; height while dragging
SLOPE, CRUISE, SPOUT = 2.0, 0.12, 0.012  # the funnel: steepness, most metres above LOW, radius of its spout
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
    region = env.initial_region if bool(env.goal_reached_status[0]) else env.goal_region
    way = motion.array(region.pose.p) - cube
    way[2] = LIFT - hand[2]
    return motion.eased(motion.capped(PULL * way, DRAG), motion.array(env.cube.linear_velocity))
