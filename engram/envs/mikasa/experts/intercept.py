"""Intercept*: catch the rolling ball as in InterceptGrab* and carry it to the target."""

import numpy as np
from mani_skill.envs.sapien_env import BaseEnv

from engram.envs.mikasa.experts import grab, motion

GAIN, FASTEST = 6.0, 0.95  # action per metre to the target; the most an action asks for
LIFT = 0.03  # metres: height of the fingertips while carrying


def action(env: BaseEnv) -> np.ndarray:
    """Catch the ball, then bring it above the target."""
    ball, hand = motion.array(env.ball.pose.p), motion.tcp(env)
    if not motion.holding(env, ball - hand):
        return grab.catch(env, ball, hand)
    way = motion.array(env.goal_region.pose.p) - ball
    way[2] = LIFT - hand[2]
    shift = motion.eased(motion.capped(GAIN * way, FASTEST), motion.array(env.ball.linear_velocity))
    return motion.move(shift, motion.turning(env))
