"""What the two cameras see, without drawing what lies outside of their pictures.

A software renderer spends its time on vertices, wherever they are: the wrist camera looks past the fingers, and the arm
behind it took half of its picture's time. A body whose bounding sphere lies outside a camera's view is left out of that
picture; pixels stay the same (tested). Objects that a task hides a kilometre above the table are such bodies, too.
"""

from typing import NamedTuple

import numpy as np
import sapien
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.sensors.camera import Camera

SENSORS = {"base": "base_camera", "wrist": "hand_camera"}
UNSEEN = "camera_link"  # the wrist camera's own housing: 425,160 triangles, nearly never in view


class Body(NamedTuple):
    """Something drawn, and a sphere around it in its own frame (metres)."""

    entity: sapien.Entity
    drawn: sapien.render.RenderBodyComponent
    centre: np.ndarray
    radius: float


class Cameras:
    """The cameras of a simulator on a CPU; the housing of the wrist camera is not drawn from here on.

    Good until the simulator builds its scene anew.
    """

    def __init__(self, sim: BaseEnv):
        hide_housing(sim)
        self.scene, self._hidden = sim.scene, sim._hidden_objects
        bodies = [_body(entity) for entity in sim.scene.sub_scenes[0].entities]
        self._bodies = [body for body in bodies if body is not None]

    def look(self) -> dict[str, np.ndarray]:
        """The pictures, uint8 (128, 128, 3), of the present state."""
        for thing in self._hidden:
            thing.hide_visual()
        return {camera: self._picture(self.scene.sensors[sensor]) for camera, sensor in SENSORS.items()}

    def _picture(self, camera: Camera) -> np.ndarray:
        outside = [body.drawn for body in self._bodies if not _in_view(body, camera)]
        for drawn in outside:
            drawn.disable()
        self.scene.update_render(update_sensors=True, update_human_render_cameras=False)
        camera.capture()
        picture = camera.get_obs(depth=False, position=False, segmentation=False)["rgb"][0].numpy()
        for drawn in outside:
            drawn.enable()
        return picture


def hide_housing(sim: BaseEnv) -> None:
    """Do not draw the housing of the wrist camera, until the robot is built anew."""
    for link in sim.agent.robot.get_links():
        if link.name == UNSEEN:
            for part in link._objs:
                part.entity.find_component_by_type(sapien.render.RenderBodyComponent).disable()


def _body(entity: sapien.Entity) -> Body | None:
    """What is drawn of an entity, if it is made of meshes alone: those have the triangles."""
    drawn = entity.find_component_by_type(sapien.render.RenderBodyComponent)
    if drawn is None or not drawn.is_enabled:
        return None
    if not all(isinstance(shape, sapien.render.RenderShapeTriangleMesh) for shape in drawn.render_shapes):
        return None
    corners = np.concatenate([_vertices(shape) for shape in drawn.render_shapes])
    centre = (corners.min(0) + corners.max(0)) / 2
    return Body(entity, drawn, centre, float(np.linalg.norm(corners - centre, axis=1).max()))


def _vertices(shape: sapien.render.RenderShapeTriangleMesh) -> np.ndarray:
    """Corners of a mesh in its entity's frame, (N, 3)."""
    pose = shape.local_pose.to_transformation_matrix()
    corners = np.concatenate([part.vertices for part in shape.parts]) * shape.scale
    return corners @ pose[:3, :3].T + pose[:3, 3]


def _in_view(body: Body, camera: Camera) -> bool:
    """False if the body's sphere lies behind the camera or beyond an edge of its picture."""
    pose, width, height = body.entity.pose.to_transformation_matrix(), camera.camera.width, camera.camera.height
    world_to_camera, lens = (
        matrix()[0].numpy() for matrix in (camera.camera.get_extrinsic_matrix, camera.camera.get_intrinsic_matrix)
    )
    x, y, z = world_to_camera[:, :3] @ (pose[:3, :3] @ body.centre + pose[:3, 3]) + world_to_camera[:, 3]
    (fx, _, cx), (_, fy, cy), _ = lens
    sides = ((fx, x, cx), (-fx, x, width - cx), (fy, y, cy), (-fy, y, height - cy))
    inside = [f * along + c * z > -body.radius * np.hypot(f, c) for f, along, c in sides]
    return bool(z > -body.radius and all(inside))
