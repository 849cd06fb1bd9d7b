"""Rotate*: turn the peg by an angle; where its place counts, between the fingers, elsewhere by a push."""

import numpy as np
from mani_skill.envs.sapien_env import BaseEnv
from mikasa_robo_suite.vla.memory_envs.rotate_strict_vla import RotateStrictVLABaseEnv

from engram.envs.mikasa.experts import push, twist


def action(env: BaseEnv) -> np.ndarray:
    """The action of the expert that fits the task: a twist takes longer than a push and moves the peg less."""
    return twist.action(env) if isinstance(env, RotateStrictVLABaseEnv) else push.action(env)
