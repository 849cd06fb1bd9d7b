"""What the experts share: reading the simulator's state, and actions of the end-effector controller.

The controller moves the hand as if an action were a velocity: 1 is about 0.8 m/s, reached within two ticks, and for
rotations about 0.8 rad/s. Quaternions are (w, x, y, z).
"""

import math

import numpy as np
from mani_skill.envs.sapien_env import BaseEnv

BASE = np.array([-0.615, 0.0])  # metres: where the arm stands
TURN = -0.1  # radians an action of 1 asks for; ManiSkill scales rotations by its lower bound, hence the sign
SPEED = 0.79  # metres per second that an action of 1 leads to
SETTLE = 0.5  # share of a wrong orientation that an action asks to undo
THIN, WIDE, INSIDE = 0.025, 0.043, 0.03  # metres: the gap of fingers on something 4 cm wide; from it to the fingertips
OPEN, CLOSED = 1.0, -1.0  # gripper actions

Quaternion = tuple[float, float, float, float]


def array(tensor) -> np.ndarray:
    """The first environment's row of a batched tensor, float64."""
    return tensor[0].cpu().numpy().astype(np.float64)


def tcp(env: BaseEnv) -> np.ndarray:
    """Where the point between the fingertips is (metres)."""
    return array(env.agent.tcp.pose.p)


def gap(env: BaseEnv) -> float:
    """Metres between the fingers; 0.08 when wide open."""
    return float(env.agent.robot.qpos[0, -2:].sum())


def holding(env: BaseEnv, way: np.ndarray) -> bool:
    """Whether the fingers have closed on the cube or the ball, which lies this way from the fingertips (metres)."""
    return THIN < gap(env) < WIDE and float(way @ way) < INSIDE**2


def funnel(distance: float, slope: float, most: float, spout: float = 0.0) -> float:
    """Metres above its goal that a hand keeps at a horizontal distance, so that it comes down from above."""
    return min(most, slope * max(0.0, distance - spout))


def capped(vector: np.ndarray, most: float) -> np.ndarray:
    """The vector, shortened to length `most`."""
    return vector * min(1.0, most / max(math.sqrt(vector @ vector), 1e-9))


def product(a: Quaternion, b: Quaternion) -> Quaternion:
    """The quaternion that rotates by b, then by a."""
    return (
        a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
        a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
        a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
        a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
    )


def leaning(tilt: float, azimuth: float = 0.0) -> Quaternion:
    """The orientation of a hand that points down, its fingertips tilted towards an azimuth (radians).

    The fingers open along y; a hand that leans away from its base reaches farther.
    """
    sine = math.sin(tilt / 2)
    return product((math.cos(tilt / 2), sine * math.sin(azimuth), -sine * math.cos(azimuth), 0.0), (0.0, 1.0, 0.0, 0.0))


DOWN = leaning(0.0)


def turned(yaw: float) -> Quaternion:
    """The orientation of a hand that points down, turned about z from where its fingers open along y (radians)."""
    return product((math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)), DOWN)


def yaw(env: BaseEnv) -> float:
    """How far the hand is turned about z, as in `turned` (radians)."""
    _, x, y, _ = env.agent.tcp.pose.q[0].tolist()
    return 2 * math.atan2(y * math.copysign(1.0, x), abs(x))


def turning(env: BaseEnv, wanted: Quaternion = DOWN) -> np.ndarray:
    """The rotation part of an action that turns the hand towards an orientation, at most at full speed."""
    w, x, y, z = env.agent.tcp.pose.q[0].tolist()
    left = product(wanted, (w, -x, -y, -z))
    axis = np.array(left[1:])
    sine = math.sqrt(max(1e-18, axis @ axis))
    angle = 2 * math.atan2(sine, abs(left[0])) * math.copysign(1.0, left[0])
    return capped(SETTLE * angle / TURN * axis / sine, 1.0)


def eased(wanted: np.ndarray, velocity: np.ndarray, keep: float = 0.5) -> np.ndarray:
    """A translation between the one that would keep the velocity (metres per second) and the one that is wanted."""
    return keep * velocity / SPEED + (1 - keep) * wanted


def move(shift: np.ndarray, turn: np.ndarray | None = None, grip: float = CLOSED) -> np.ndarray:
    """The action, float32 (7,), of a translation and a rotation, both in the controller's units, and the gripper."""
    rotation = np.zeros(3) if turn is None else turn
    return np.concatenate([shift, rotation, [grip]]).clip(-1, 1).astype(np.float32)


def still() -> np.ndarray:
    """The action of one who watches: zeros."""
    return np.zeros(7, np.float32)
