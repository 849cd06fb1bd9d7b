"""Remember* and FindImposter*: fly to the right object in a funnel and stop with the closed fingertips on its top.

The height reference falls with the distance that is left, so that the hand does not sweep over the other objects. An
object that is too far for a hand pointing down (FindImposterShapeAndColor5x3 has some) is met by a hand that leans.
"""

import numpy as np
from mani_skill.envs.sapien_env import BaseEnv

from engram.envs.mikasa.experts import motion

GAIN, FASTEST = 9.0, 0.95  # action per metre that is left; the most an action asks for
ABOVE = 0.03  # metres from the object's centre up to the resting place; within 0.05 counts as touched
SLOPE, CRUISE = 0.6, 0.10  # the funnel: steepness, most metres above the resting place
REACH, LEAN = 0.70, 4.0  # metres from the arm's base up to which the hand may point down; radians a metre beyond


def action(env: BaseEnv) -> np.ndarray:
    """Zeros until the choice; then straight to the right object, whose place the environment knows."""
    if int(env.elapsed_steps[0]) < int(env.cue_steps_per_env[0] + env.empty_steps_per_env[0]):
        return motion.still()
    way = motion.array(env.obj_to_goal_pos)
    out = way[:2] + motion.tcp(env)[:2] - motion.BASE
    lean = LEAN * max(0.0, float(np.hypot(*out)) - REACH)
    way[2] += ABOVE + motion.funnel(float(np.hypot(way[0], way[1])), SLOPE, CRUISE)
    turn = motion.turning(env, motion.leaning(lean, float(np.arctan2(out[1], out[0])))) if lean else None
    return motion.move(motion.capped(GAIN * way, FASTEST), turn)
