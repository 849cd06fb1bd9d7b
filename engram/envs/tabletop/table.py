"""The simulation: one table with its arm. It moves, notices the first cube touched, and takes pictures."""

from collections.abc import Mapping, Sequence

import numpy as np

from engram.envs.tabletop import gl, scene

gl.use()

try:
    import mujoco
except ModuleNotFoundError as missing:
    if missing.name != "mujoco":
        raise
    raise ImportError('envs/tabletop needs MuJoCo; install it with: pip install "engram-vla[tabletop]"') from missing

CAMERAS = ("base", "wrist")
PICTURE = 256  # side of the picture for people
DELTA = np.array([0.04, 0.04, 0.04, 0.25, 0.25, 0.25])  # metres and radians per tick at |action| = 1
LOW = np.array([-scene.REACH, -scene.REACH, 0.02, -0.25, -0.25, -1.2])
HIGH = np.array([scene.REACH, scene.REACH, 0.22, 0.25, 0.25, 1.2])
ON_STAND = (*scene.STAND, scene.STAND_HEIGHT + scene.CUBE / 2)  # centre of a cube that stands on the stand


class Table:
    """Pose vectors are float64 (7,): x y z (m) of the fingertip, roll pitch yaw (rad), gripper opening in [0, 1].

    `row` cubes can be shown along the far side; `extra` is MJCF of what else stands there.
    """

    def __init__(self, image_size: int = 64, row: int = 0, extra: str = ""):
        xml = scene.mjcf(max(PICTURE, image_size), scene.row(row) + extra)
        self.model = mujoco.MjModel.from_xml_string(xml)
        self.data = mujoco.MjData(self.model)
        self._size = image_size
        self._renderers: dict[int, mujoco.Renderer] = {}
        self._seen: tuple[bytes, dict[str, np.ndarray]] | None = None
        self._body = {name: self.model.body(f"cube-{name}").mocapid[0] for name in scene.COLORS}
        self._color = {self.model.geom(f"cube-{name}").id: name for name in scene.COLORS}
        self._cue_body, self._cue_geom = self.model.body("cue").mocapid[0], self.model.geom("cue").id
        self._row = [(self.model.body(f"row-{i}").mocapid[0], self.model.geom(f"row-{i}").id) for i in range(row)]

    @property
    def pose(self) -> np.ndarray:
        """The measured pose; there is no commanded pose to differ from it."""
        joints = self.data.qpos
        return np.append(joints[:6], joints[6:].mean() / scene.STROKE)

    @property
    def size(self) -> int:
        """Side of the pictures of the robot's cameras, in pixels."""
        return self._size

    def set_pose(self, pose: np.ndarray) -> None:
        """Put the arm at rest at `pose` at once."""
        joints = _joints(pose)
        self.data.qpos[:], self.data.ctrl[:], self.data.qvel[:] = joints, joints, 0
        self.data.qacc_warmstart[:] = 0  # the solver must not remember the episode before
        mujoco.mj_forward(self.model, self.data)

    def place(
        self,
        cubes: Mapping[str, Sequence[float] | np.ndarray],
        extra: str | None = None,
        at: Sequence[float] | np.ndarray = ON_STAND,
        row: Sequence[str | None] = (),
    ) -> None:
        """Show exactly these cubes (colour -> centre, metres) and one more in any colour, on the stand or `at`.

        `row` gives the colours of the row along the far side, from left to right; None where no cube is shown.
        """
        self.data.mocap_pos[:] = scene.HIDDEN
        for color, position in cubes.items():
            self.data.mocap_pos[self._body[color]] = position
        if extra is not None:
            self.data.mocap_pos[self._cue_body] = at
            self.model.geom_rgba[self._cue_geom, :3] = scene.COLORS[extra]
        for (body, geom), spot, shown in zip(self._row, scene.row_places(len(self._row)), row, strict=bool(row)):
            if shown is not None:
                self.data.mocap_pos[body] = spot
                self.model.geom_rgba[geom, :3] = scene.COLORS[shown]
        mujoco.mj_forward(self.model, self.data)

    def put(self, color: str, position: Sequence[float] | np.ndarray) -> None:
        """Move the cube of a colour, amid substeps."""
        self.data.mocap_pos[self._body[color]] = position

    def move(self, action: np.ndarray, leaving: str | None = None) -> str | None:
        """One control tick towards the measured pose + delta; returns the colour of the cube touched first, if any.

        The motion stops at the touch, but not at that of the cube `leaving`, on which the hand rests already. `action`
        is float (7,) in [-1, 1]; its last entry is the opening wanted, -1 closed to 1 open.
        """
        self.steer(self.target(action))
        touched = None
        for _ in range(scene.SUBSTEPS):
            touched = self.substep()
            if touched not in (None, leaving):
                break
        self.settle()
        return touched if touched not in (None, leaving) else self.touching()

    def target(self, action: np.ndarray) -> np.ndarray:
        """The pose that an action asks for: the measured one + delta, within the workspace."""
        return np.append(np.clip(self.pose[:6] + DELTA * action[:6], LOW, HIGH), (action[6] + 1) / 2)

    def steer(self, pose: np.ndarray) -> None:
        """Let the next substeps go for `pose`."""
        self.data.ctrl[:] = _joints(pose)

    def substep(self) -> str | None:
        """One step of the simulation; returns what was touched in the state that it started from."""
        mujoco.mj_step(self.model, self.data)
        return self.touching()

    def settle(self) -> None:
        """Bring contacts and pictures up to the present state, after substeps."""
        mujoco.mj_forward(self.model, self.data)

    def touching(self) -> str | None:
        """Colour of the cube in contact with the hand; of several, the deepest contact."""
        if self.data.ncon == 0:
            return None
        contact = self.data.contact
        pairs = contact.geom[contact.dist.argsort(kind="stable")]
        return next((self._color[geom] for geom in pairs.ravel().tolist() if geom in self._color), None)

    def images(self) -> dict[str, np.ndarray]:
        """Pictures of the robot's cameras, uint8 (size, size, 3); drawn anew only if something has changed."""
        state = b"".join(part.tobytes() for part in (self.data.qpos, self.data.mocap_pos, self.model.geom_rgba))
        if self._seen is None or self._seen[0] != state:
            self._seen = state, {camera: self._draw(camera, self._size) for camera in CAMERAS}
        return {camera: image.copy() for camera, image in self._seen[1].items()}

    def picture(self) -> np.ndarray:
        """The scene as a person would film it, uint8 (256, 256, 3)."""
        return self._draw("human", PICTURE)

    def close(self) -> None:
        """Free the rendering contexts."""
        while self._renderers:
            self._renderers.popitem()[1].close()

    def _draw(self, camera: str, size: int) -> np.ndarray:
        if size not in self._renderers:
            self._renderers[size] = mujoco.Renderer(self.model, size, size)
        renderer = self._renderers[size]
        renderer.update_scene(self.data, camera)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        return renderer.render()


def _joints(pose: np.ndarray) -> np.ndarray:
    return np.append(pose[:6], (pose[6] * scene.STROKE, pose[6] * scene.STROKE))
