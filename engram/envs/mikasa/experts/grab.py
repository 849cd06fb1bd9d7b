"""InterceptGrab*: fly to where the ball will be, fall in with it, close the fingers around it, come to rest.

The hand keeps its first orientation: its fingers open along y, the way the ball rolls, so that it has to move with the
ball. The lead shrinks with the distance, which turns the flight towards the meeting point into following.
"""

import numpy as np
from mani_skill.envs.sapien_env import BaseEnv

from engram.envs.mikasa.experts import motion

REACH = 0.76  # metres from the arm's base that a hand pointing down reaches
RUSH = 0.8  # metres per second assumed for the flight to the meeting point
END = 0.15  # metres from the ball at which the lead is half of what that takes; it fades towards the ball
NEAR = 0.10  # metres from the ball at which the hand takes over half of its velocity
GAIN, FASTEST = 7.0, 1.0  # action per metre that is left; the most an action asks for
LOW = 0.02  # metres: height of the fingertips that grasp
SLOPE, CRUISE, SPOUT = 3.0, 0.05, 0.012  # the funnel: steepness, most metres above LOW, radius of its spout
CLOSE = 0.015  # metres from the ball within which the fingers close


def action(env: BaseEnv) -> np.ndarray:
    """Catch the ball, then brake."""
    ball, hand = motion.array(env.ball.pose.p), motion.tcp(env)
    if not motion.holding(env, ball - hand):
        return catch(env, ball, hand)
    return motion.move(motion.eased(np.zeros(3), motion.array(env.ball.linear_velocity)), motion.turning(env))


def catch(env: BaseEnv, ball: np.ndarray, hand: np.ndarray) -> np.ndarray:
    """One step towards the ball, with it, or around it; the places of ball and fingertips are the environment's."""
    velocity = motion.array(env.ball.linear_velocity)[:2]
    away = float(np.hypot(*(ball - hand)[:2]))
    way = _meeting(ball[:2], velocity, away) - hand[:2]
    rise = LOW + motion.funnel(away, SLOPE, CRUISE, SPOUT) - hand[2]
    follow = velocity / motion.SPEED / (1 + (away / NEAR) ** 2)
    shift = motion.capped(np.array([*(GAIN * way + follow), GAIN * rise]), FASTEST)
    close = away < CLOSE and hand[2] - LOW < CLOSE
    return motion.move(shift, motion.turning(env), motion.CLOSED if close else motion.OPEN)


def _meeting(ball: np.ndarray, velocity: np.ndarray, away: float) -> np.ndarray:
    """Where hand and ball can meet, within reach: the ball's place after the hand's flight, or the ball from nearby."""
    meeting = ball + velocity * (away / RUSH) * (away / (away + END))
    return motion.BASE + motion.capped(meeting - motion.BASE, REACH)
