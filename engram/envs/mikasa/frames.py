"""Single frames of random scenes made of MIKASA-Robo's objects, with their labels, for pretraining vision.

Objects lie at random: never a sequence, a cue, a delay or a task's own layout. The arm is anywhere in its workspace,
often near an object, as it is when it matters. Some kinds are there twice, so that they can be compared.

Legend: F frames, N objects at most in a frame.
"""

import numpy as np
import sapien
import torch
from mani_skill.utils.scene_builder.table import TableSceneBuilder
from mani_skill.utils.structs.pose import Pose
from mikasa_robo_suite.vla.memory_envs.remember_color_vla import RememberColorVLABaseEnv
from mikasa_robo_suite.vla.memory_envs.remember_shape_vla import RememberShapeVLABaseEnv
from mikasa_robo_suite.vla.utils import shapes

from engram.envs.mikasa.cameras import SENSORS, Cameras
from engram.envs.mikasa.experts import motion
from engram.envs.mikasa.task import proprioception

SHAPES = (*RememberShapeVLABaseEnv.SHAPE_MAPPING.values(), "target")
COLORS = (*(name.lower() for name, _ in RememberColorVLABaseEnv.COLOR_MAPPING.values()), "violet")
RGB = [np.array(rgb) / 255 for _, rgb in RememberColorVLABaseEnv.COLOR_MAPPING.values()]
BLUE = COLORS.index("blue")
# Cubes of any colour, all shapes in red, lime or blue, as the benchmark has them; each twice, so that a frame can show
# twins; and at the end both targets.
TWINS = 2 * [(shape, color) for shape in range(len(SHAPES) - 1) for color in range(9 if shape == 0 else 3)]
KINDS = [*TWINS, (SHAPES.index("target"), COLORS.index("red")), (SHAPES.index("target"), COLORS.index("violet"))]
OFTEN = [0.3 / 9 * (shape == 0) + 0.5 / 27 * (color < 3) + 0.2 / 9 * (color == BLUE) for shape, color in TWINS]
MOST = 12  # objects in a frame, a target beside them
TABLE = ((-0.33, -0.33), (0.25, 0.33))  # metres: where objects lie, low and high corner
APART = 0.055  # metres between two centres, at least
AWAY = 1000.0  # metres: height at which objects are that a frame does not show
REST = np.array([0, 0, 0, -np.pi * 2 / 3, 0, np.pi * 2 / 3, np.pi / 4, 0.04, 0.04])  # radians, metres: as tasks begin
HELD = np.array([1] * 7 + [0] * 2)  # which of these joints tasks begin with some noise in
WAYS, STEPS = 50, 6  # of the arm's wandering: places it heads for, ticks for each


class Still(RememberShapeVLABaseEnv):
    """The benchmark's table, arm and cameras, and its objects, KINDS; nothing happens in it.

    upright  quaternion of each object as the benchmark lays it; heights: of its centre then, metres
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, robot_uids="panda_wristcam", **kwargs)

    def _load_scene(self, options: dict) -> None:
        self.table_scene = TableSceneBuilder(self, robot_init_qpos_noise=self.robot_init_qpos_noise)
        self.table_scene.build()
        self.objects = [
            self._target(key, color) if SHAPES[shape] == "target" else self._object(shape, key, color)
            for key, (shape, color) in enumerate(KINDS)
        ]
        self.upright = [self._get_shape_quaternion(SHAPES[shape]) for shape, _ in KINDS]
        self.heights = list(map(self._compute_actor_resting_z, self.objects, self.upright))

    def _object(self, shape: int, key: int, color: int):
        return self._build_shape_actor(SHAPES[shape], key, RGB[color])

    def _target(self, key: int, color: int):
        outer = [147, 0, 211, 255] if COLORS[color] == "violet" else [194, 19, 22, 255]
        return shapes.build_target(
            self.scene, radius=0.1, thickness=1e-5, name=f"target_{key}", add_collision=False, body_type="kinematic",
            primary_color=np.array(outer) / 255, secondary_color=np.ones(4), initial_pose=sapien.Pose(p=[0, 0, AWAY]),
        )  # fmt: skip

    def _initialize_episode(self, env_idx: torch.Tensor, options: dict) -> None:
        self.table_scene.initialize(env_idx)
        self.agent.reset(REST)
        self.agent.robot.set_root_pose(sapien.Pose([*motion.BASE, 0]))
        for actor in self.objects:
            actor.set_pose(Pose.create_from_pq(p=[[0, 0, AWAY]], q=[[1, 0, 0, 0]]))

    def evaluate(self) -> dict:
        return {}

    def _get_obs_extra(self, info: dict) -> dict:
        return {}


def scenes(seed: int, count: int) -> dict[str, np.ndarray]:
    """`count` independent scenes: a function of its arguments (and of the renderer).

    base, wrist  uint8 (F, 128, 128, 3)
    proprio      float32 (F, 7)         pose of the tool centre and gap of the fingers
    kinds        int64 (F, N)           shape * len(COLORS) + colour of each object; -1 where there is none
    positions    float32 (F, N, 3)      their centres, metres
    pixels       float32 (F, C, N, 2)   where the base and the wrist camera show the centres; NaN outside the picture
    """
    rng = np.random.default_rng(seed)
    env = Still(obs_mode="rgb", control_mode="pd_ee_delta_pose", sim_backend="physx_cpu", render_backend="cpu",
                reward_mode="none")  # fmt: skip
    env.reset(seed=seed)
    cameras, poses = Cameras(env), _wander(env, rng)
    drawn = [_scene(env, cameras, rng, poses) for _ in range(count)]
    env.close()
    return {key: np.stack([one[key] for one in drawn]) for key in drawn[0]}


def _wander(env: Still, rng: np.random.Generator) -> np.ndarray:
    """Joint positions, float (P, 9), of a hand that heads for random places above the table."""
    env._obs_mode = "none"  # no frame is needed on the way, and `Cameras` draws those that are
    passed = []
    for _ in range(WAYS):
        low = rng.random() < 0.7
        place = np.array([*rng.uniform(*TABLE), rng.uniform(0.02, 0.1 if low else 0.25)])
        tilt = motion.leaning(rng.uniform(0, 0.6) * (rng.random() < 0.4), rng.uniform(-0.5, 0.5))
        grip = motion.OPEN if rng.random() < 0.4 else motion.CLOSED
        for _ in range(STEPS):
            way = motion.capped(8 * (place - motion.tcp(env)), 1.0)
            env.step(motion.move(way, motion.turning(env, tilt), grip))
            passed.append(env.agent.robot.get_qpos()[0].numpy().copy())
    return np.stack(passed)


def _scene(env: Still, cameras: Cameras, rng: np.random.Generator, poses: np.ndarray) -> dict[str, np.ndarray]:
    pose = REST + rng.normal(0, 0.02, 9) * HELD if rng.random() < 0.3 else poses[rng.integers(len(poses))]
    env.agent.robot.set_qpos(torch.from_numpy(pose.astype(np.float32))[None])
    count = int(rng.integers(1, MOST + 1)) if rng.random() < 0.7 else int(rng.integers(1, 4))
    chosen = rng.choice(len(TWINS), count, replace=False, p=np.array(OFTEN) / sum(OFTEN)).tolist()
    near = motion.tcp(env)[:2] + rng.normal(0, 0.06, 2) * rng.random() if rng.random() < 0.65 else None
    spots = _spots(rng, count, near)
    if rng.random() < 0.35:  # a target lies under other things
        chosen.append(int(rng.integers(len(TWINS), len(KINDS))))
        spots = [*spots[:count], rng.uniform(*TABLE)]
    kinds, positions = np.full(MOST + 1, -1), np.full((MOST + 1, 3), np.nan, np.float32)
    for actor in env.objects:
        actor.set_pose(Pose.create_from_pq(p=[[0, 0, AWAY]], q=[[1, 0, 0, 0]]))
    for row, (key, spot) in enumerate(zip(chosen, spots, strict=True)):
        shape, color = KINDS[key]
        kinds[row], positions[row] = shape * len(COLORS) + color, _put(env, rng, key, spot)
    pixels = np.stack([_pixels(env, sensor, positions) for sensor in SENSORS.values()])
    return {**cameras.look(), "proprio": proprioception(env), "kinds": kinds, "positions": positions, "pixels": pixels}


def _pixels(env: Still, sensor: str, positions_NX: np.ndarray) -> np.ndarray:
    """Column and row, float32 (N, 2), of positions in a camera's picture; NaN where it does not show them."""
    camera = env.scene.sensors[sensor].camera
    world_to_camera, intrinsic = (m[0].numpy() for m in (camera.get_extrinsic_matrix(), camera.get_intrinsic_matrix()))
    seen_NX = positions_NX @ world_to_camera[:, :3].T + world_to_camera[:, 3]
    pixels_N2 = (seen_NX @ intrinsic.T)[:, :2] / seen_NX[:, 2:]
    inside_N = (seen_NX[:, 2] > 0) & (pixels_N2 >= 0).all(1) & (pixels_N2 < 128).all(1)
    return np.where(inside_N[:, None], pixels_N2, np.nan).astype(np.float32)


def _put(env: Still, rng: np.random.Generator, key: int, spot: np.ndarray) -> np.ndarray:
    """Lay an object there, most often as the benchmark does: unturned. Its centre, metres (3,)."""
    if SHAPES[KINDS[key][0]] == "target":
        pose = sapien.Pose([*spot, 1e-3], [np.sqrt(0.5), 0, np.sqrt(0.5), 0])
    else:
        yaw = rng.uniform(0, 2 * np.pi) * (rng.random() < 0.3)
        turned = sapien.Pose([*spot, env.heights[key]], [np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)])
        pose = turned * sapien.Pose(q=env.upright[key])
    env.objects[key].set_pose(Pose.create_from_pq(p=[pose.p], q=[pose.q]))
    return pose.p


def _spots(rng: np.random.Generator, count: int, near: np.ndarray | None) -> list[np.ndarray]:
    """`count` places that do not overlap; the first is `near`, if given. Now and then all lie in one corner."""
    low, high = np.array(TABLE)
    if rng.random() < 0.5:  # crowded, as candidates are
        centre = rng.uniform(low, high)
        low, high = np.maximum(low, centre - 0.2), np.minimum(high, centre + 0.2)
    spots = [] if near is None else [near.clip(*TABLE)]
    while len(spots) < count:
        spot = rng.uniform(low, high)
        crowd = sum(np.linalg.norm(spot - other) < APART for other in spots)
        if not crowd or rng.random() < 0.05:  # where there is no room left, some touch
            spots.append(spot)
    return spots
