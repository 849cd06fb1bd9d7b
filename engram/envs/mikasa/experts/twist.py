"""RotateStrict*: grasp the peg in its middle and turn it with the wrist.

The fingers may close before the hand is in line with the peg, which then turns into line. Both ways to grasp it are
half a turn apart; the hand takes the one that leaves its wrist the most room for the turn that follows.
"""

import math

import numpy as np
from mani_skill.envs.sapien_env import BaseEnv

from engram.envs.mikasa.experts import motion

ROOM = 0.35  # radians by which the middle of the grasping angles lies against the turn
GAIN, FASTEST = 8.0, 0.8  # action per metre that is left; the most an action asks for
SLOPE, CRUISE, SPOUT = 3.0, 0.07, 0.012  # the funnel: steepness, most metres above the grasp, radius of its spout
LOOSE, LEVER = 0.40, 0.2  # radians out of line up to which the fingers fit around the peg; metres a radian more counts
CLOSE = 0.02  # metres from the grasp, horizontally and in height, within which the fingers close
WIDE = 0.056  # metres between fingers that hold the peg, which is 0.05 wide
REST, STRAY = 0.085, 0.04  # radians left, metres astray at which the hand keeps still; 0.1 and 0.05 would do


def action(env: BaseEnv) -> np.ndarray:
    """Around the peg, fingers closed, and round, in its place; still once angle and place are right."""
    left, peg, hand = float(env.angle_diff[0]), motion.array(env.peg.pose.p), motion.tcp(env)
    home = motion.array(env.initial_peg_position) - peg
    right = abs(left) < REST and abs(home[:2]).max() < STRAY
    astray = _grasp(env, left) - motion.yaw(env)
    if not right and not _around(peg - hand, astray):
        return _approach(peg - hand, astray, env)
    if right or motion.gap(env) > WIDE:  # the fingers stay closed, or are closing
        return motion.move(np.zeros(3))
    shift = motion.capped(GAIN * home * [1, 1, 0], FASTEST)
    return motion.move(shift, motion.turning(env, motion.turned(motion.yaw(env) + left)))


def _approach(way: np.ndarray, astray: float, env: BaseEnv) -> np.ndarray:
    off = float(np.hypot(way[0], way[1])) + LEVER * max(0.0, abs(astray) - LOOSE)
    rise = np.array([0, 0, motion.funnel(off, SLOPE, CRUISE, SPOUT)])
    turn = motion.turning(env, motion.turned(motion.yaw(env) + astray))
    return motion.move(motion.capped(GAIN * (way + rise), FASTEST), turn, motion.OPEN)


def _around(way: np.ndarray, astray: float) -> bool:
    """Whether the fingers are low on either side of the peg, so that they may close."""
    level = np.hypot(way[0], way[1]) < CLOSE and abs(way[2]) < CLOSE
    return bool(level) and abs(math.remainder(astray, math.pi)) < LOOSE


def _grasp(env: BaseEnv, left: float) -> float:
    """The yaw of the hand that has the peg between its fingers."""
    w, _, _, z = env.peg.pose.q[0].tolist()
    middle = -math.copysign(ROOM, left)
    return middle + math.remainder(2 * math.atan2(z, w) - middle, math.pi)
