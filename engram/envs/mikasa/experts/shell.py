"""ShellGame*: touch the cup with the ball on its top, push it forward from behind, or lift it by its handle.

Cups stand upside down, their handles where ShellGamePick says. Tried on a stand-in of the published mug (tests/mug.py),
which is in no package, and on that alone. What is done follows where the cups are, since they may not stay where they
come down: hidden a kilometre above the table they fall, come back below its top, and the simulator throws them out.
"""

import numpy as np
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.utils.structs.actor import Actor
from mikasa_robo_suite.vla.memory_envs.shell_game_pick_vla import ShellGamePickVLABaseEnv
from mikasa_robo_suite.vla.memory_envs.shell_game_push_vla import ShellGamePushVLABaseEnv

from engram.envs.mikasa.experts import motion

GAIN, FASTEST = 10.0, 0.95  # action per metre that is left; the most an action asks for
SLOPE, SPOUT = 3.0, 0.012  # of the funnels: steepness, radius of their spouts (metres)
CLIMB = 0.05  # metres below the funnel at which the hand only rises
CRUISE = 0.06  # metres above the working height at which the fingers pass over cups
PALM = 0.032  # metres below a cup's top at which the fingertips work beside it: the palm stays above
REACH, LEAN = 0.70, 4.0  # metres from the arm's base up to which the hand may point down; radians a metre beyond

ABOVE, SWEEP = 0.012, 0.6  # Touch. metres from a cup's top to the fingertips' resting place; slope of that funnel

BEHIND, STRIP = 0.1, (-0.13, -0.06)  # Push. metres from cup to where the hand comes down; and between which it is low
DEEP, SHALLOW = 0.015, 0.03  # metres above the working height: the push is full, the push sets in
PUSH, HARDEST, REST = 6.0, 0.7, 0.02  # action per metre that is left; the most; metres left at which the hand rests

YAW = -0.76  # Pick. radians: a hand turned like this closes its fingers across the handle
LOOSE, LEVER = 0.35, 0.2  # radians out of line that the fingers forgive; metres that a radian more counts
STEEP, NARROW = 6.0, 0.005  # the funnel there: steepness, radius of its spout (metres)
OUT = 0.011  # metres beyond the task's own place in the handle, where the fingers are clear of the wall
AJAR = 0.2  # gripper action: fingers 4 cm apart, which pass beside the wall where wide open ones would not
CLOSE = 0.02  # metres from the handle, horizontally and in height, within which the fingers close
PULL, CARRY = 8.0, 0.6  # action per metre that is left; the most
ENOUGH = 0.07  # metres from the goal at which the hand rests; 0.08 would do


def action(env: BaseEnv) -> np.ndarray:
    """Zeros while the ball shows; then what the task asks for, with the cup that hides the ball."""
    if int(env.elapsed_steps[0]) < int(env.cue_steps_per_env[0]):
        return motion.still()
    if isinstance(env, ShellGamePickVLABaseEnv):
        return pick(env)
    return push(env) if isinstance(env, ShellGamePushVLABaseEnv) else touch(env)


def touch(env: BaseEnv) -> np.ndarray:
    """Down in a funnel onto the middle of the cup's top, fingers closed, and rest there."""
    way = motion.array(_cup(env).pose.p) - motion.tcp(env)
    away = float(np.hypot(*way[:2]))
    way[2] = _top(env) + ABOVE + motion.funnel(away, SWEEP, CRUISE) - motion.tcp(env)[2]
    return motion.move(motion.capped(GAIN * way, FASTEST), _turning(env, way))


def push(env: BaseEnv) -> np.ndarray:
    """Over the cups to the near side of the right one, down, and forward (+x), slower as its goal comes closer."""
    cup, hand = motion.array(_cup(env).pose.p), motion.tcp(env)
    left = float(motion.array(env.goal_site.pose.p)[0] - cup[0])
    return motion.move(_shift(hand - cup, _top(env) - PALM - hand[2], left), motion.turning(env))


def _shift(offset: np.ndarray, depth: float, left: float) -> np.ndarray:
    """The translation of a hand this far from the cup (metres), `depth` from its working height, `left` to push.

    The lower the hand is, the more it pushes instead of keeping behind; a hand below its funnel rises first.
    """
    astray = offset[0] - min(max(offset[0], STRIP[0]), STRIP[1])
    off = float(np.hypot(astray, offset[1]))
    rise = depth + motion.funnel(off, SLOPE, CRUISE, SPOUT)
    low = min(1.0, max(0.0, (SHALLOW + depth) / (SHALLOW - DEEP))) if off < 2 * SPOUT else 0.0
    wanted = min(HARDEST, PUSH * left) if left > REST else 0.0
    forward = (1 - low) * GAIN * (-BEHIND - offset[0]) + low * wanted
    flat = np.array([forward, -GAIN * offset[1]]) * min(1.0, max(0.0, 1 - rise / CLIMB))
    return motion.capped(np.array([*flat, GAIN * rise]), FASTEST)


def pick(env: BaseEnv) -> np.ndarray:
    """Around the handle from above, fingers closed, and with the cup to its goal above the table."""
    cup, hand = _cup(env), motion.tcp(env)
    way = _handle(env, cup) - hand
    away = float(np.hypot(*way[:2]))
    close = away < CLOSE and abs(way[2]) < CLOSE
    if bool(env.is_grasped[0]) and away < 2 * CLOSE:
        return motion.move(_lift(env, cup), motion.turning(env, motion.turned(motion.yaw(env))))
    off = away + LEVER * max(0.0, abs(YAW - motion.yaw(env)) - LOOSE)
    way[2] += motion.funnel(off, STEEP, CRUISE, NARROW)
    turn = motion.turning(env, motion.turned(YAW))
    return motion.move(motion.capped(GAIN * way, FASTEST), turn, motion.CLOSED if close else AJAR)


def _lift(env: BaseEnv, cup: Actor) -> np.ndarray:
    """The translation that brings a held cup to its goal, or close enough to come to rest."""
    way = motion.array(env.goal_site.pose.p) - motion.array(cup.pose.p)
    return motion.capped(PULL * way, CARRY) if float(way @ way) > ENOUGH**2 else np.zeros(3)


def _handle(env: BaseEnv, cup: Actor) -> np.ndarray:
    """Where the fingertips hold a cup (metres): at the task's own place and a little out, the palm above the cup."""
    matrix = cup.pose.to_transformation_matrix()[0].cpu().numpy()
    half, away = _top(env) / 2, np.hypot(env.HANDLE_OFFSET_X, env.HANDLE_OFFSET_Y) + OUT
    low = max(matrix[2, 3] + away * matrix[2, 0], half) + half - PALM
    return np.array([*(matrix[:2, 3] + away * matrix[:2, 0]), low])


def _cup(env: BaseEnv) -> Actor:
    return (env.mug_left, env.mug_center, env.mug_right)[int(env.cup_with_ball_number[0])]


def _top(env: BaseEnv) -> float:
    """Height of a standing cup (metres): in its first ticks, in which a cup rises from below, not yet where it is."""
    return 2 * float(env.object_zs[0])


def _turning(env: BaseEnv, way: np.ndarray) -> np.ndarray:
    """The rotation of a hand that leans outwards towards what is too far for one that points down."""
    out = way[:2] + motion.tcp(env)[:2] - motion.BASE
    lean = LEAN * max(0.0, float(np.hypot(*out)) - REACH)
    return motion.turning(env, motion.leaning(lean, float(np.arctan2(out[1], out[0])))) if lean else np.zeros(3)
