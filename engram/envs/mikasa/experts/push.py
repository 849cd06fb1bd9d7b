"""RotateLenient*: push the peg sideways near one of its ends with closed fingers, slower as the angle comes closer.

Of the two ends, each with the side that turns the peg the right way, it takes the one near the hand and within reach.
"""

import numpy as np
from mani_skill.envs.sapien_env import BaseEnv

from engram.envs.mikasa.experts import motion

REACH = 0.74  # metres from the arm's base up to which an end of the peg is easy to push
UPRIGHT, LEAN, MOST = 0.60, 3.0, 0.6  # metres from there up to which the hand points down; radians a metre beyond, most
ARM = 0.10  # metres from the peg's centre to where it is pushed
ASIDE = 0.055  # metres from the peg's axis at which the hand comes down
STRIP = (-0.075, -0.025)  # metres from the axis between which the hand may be low: beside the peg, or against it
STRETCH = 3.0  # price of a metre beyond REACH; a metre of the hand's way costs 1
GAIN, FASTEST = 8.0, 0.8  # action per metre that is left; the most an action asks for
PUSH, HARDEST = 1.2, 0.45  # action per radian that is left; the most
REST = 0.085  # radians left at which the hand keeps still; below 0.1 the angle counts
LOW = 0.025  # metres: height of the pushing fingertips
DEEP, SHALLOW = 0.04, 0.055  # metres: heights of the fingertips at which the push is full, at which it sets in
SLOPE, CRUISE, SPOUT = 3.0, 0.07, 0.012  # the funnel: steepness, most metres above LOW, radius of its spout
CLIMB = 0.05  # metres below the funnel at which the hand only rises


def action(env: BaseEnv) -> np.ndarray:
    """Towards the better end of the peg, down beside it, and against it; still once the angle is right."""
    centre, hand, left = motion.array(env.peg.pose.p)[:2], motion.tcp(env), float(env.angle_diff[0])
    if abs(left) < REST:
        return motion.move(np.zeros(3))
    axis = _axis(motion.array(env.peg.pose.q))
    arm, push = min(_ends(axis, left), key=lambda end: _price(centre, hand[:2], *end))
    return motion.move(_approach(centre, hand, arm, push, abs(left)), motion.turning(env, _leaning(hand)))


def _leaning(hand: np.ndarray) -> motion.Quaternion:
    """The farther the hand, the more it leans outwards: pointing down it reaches 0.77 m."""
    out = hand[:2] - motion.BASE
    return motion.leaning(float(np.clip(LEAN * (np.hypot(*out) - UPRIGHT), 0, MOST)), float(np.arctan2(out[1], out[0])))


def _axis(q: np.ndarray) -> np.ndarray:
    yaw = 2 * np.arctan2(q[3], q[0])
    return np.array([np.cos(yaw), np.sin(yaw)])


def _ends(axis: np.ndarray, left: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Both ways to turn the peg: the vector from its centre to the place, and the direction of the push."""
    across = np.sign(left) * np.array([-axis[1], axis[0]])
    return [(ARM * axis, across), (-ARM * axis, -across)]


def _price(centre: np.ndarray, hand: np.ndarray, arm: np.ndarray, push: np.ndarray) -> float:
    place = centre + arm - ASIDE * push
    beyond = max(0.0, float(np.linalg.norm(place - motion.BASE)) - REACH)
    return float(np.linalg.norm(place - hand)) + STRETCH * beyond


def _approach(centre: np.ndarray, hand: np.ndarray, arm: np.ndarray, push: np.ndarray, left: float) -> np.ndarray:
    """The translation: above the strip beside the peg's end first, then down, then along the push.

    The lower the hand is, the more it pushes instead of keeping aside; a hand below its funnel rises first.
    """
    offset = hand[:2] - centre - arm
    across = float(offset @ push)
    along = offset - across * push
    off = float(np.hypot(np.hypot(*along), across - min(max(across, STRIP[0]), STRIP[1])))
    rise = LOW + motion.funnel(off, SLOPE, CRUISE, SPOUT) - hand[2]
    low = min(1.0, max(0.0, (SHALLOW - hand[2]) / (SHALLOW - DEEP))) if off < 2 * SPOUT else 0.0
    forward = (1 - low) * GAIN * (-ASIDE - across) + low * min(HARDEST, PUSH * left)
    flat = (forward * push - GAIN * along) * min(1.0, max(0.0, 1 - rise / CLIMB))
    return motion.capped(np.array([*flat, GAIN * rise]), FASTEST)
