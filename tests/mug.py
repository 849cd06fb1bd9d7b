"""A stand-in for the mug `025_mug` of the YCB set, for the shell game: the published one is in no package.

A hollow cup with a handle, 10.7 x 9.5 x 8.1 cm about its origin like the published mug, open at the top (+z), the
handle towards +x, its bar where MIKASA-Robo's ShellGamePick expects it (4.8 cm from the origin). The rest is a guess:
thickness of the wall, shape of the handle, mass (that of water, as ManiSkill has it, in what is not hollow).
"""

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from trimesh.transformations import rotation_matrix

HALF = np.array([0.0535, 0.0475, 0.0407])  # metres: half of the box around it
RADIUS, WALL, SIDES = 0.0475, 0.005, 24  # metres, metres, planks the wall is made of
AXIS = RADIUS - HALF[0]  # metres: x of the cup's axis
BAR, REACH = np.array([0.009, 0.010, 0.052]), 0.004  # metres: size of the handle's bar; half an arm's height


def furnish(folder: Path) -> Path:
    """Write the mug into an asset directory as ManiSkill lays it out; gives the directory for `MS_ASSET_DIR`."""
    assets = folder / "data/assets/mani_skill2_ycb"
    model = assets / "models/025_mug"
    model.mkdir(parents=True)
    parts = _parts()
    trimesh.util.concatenate(parts).export(model / "collision.ply")
    _painted(trimesh.util.concatenate(parts)).export(model / "textured.obj", mtl_name="mug.mtl")
    about = {"bbox": {"min": (-HALF).tolist(), "max": HALF.tolist()}, "scales": [1.0], "density": 1000}
    (assets / "info_pick_v0.json").write_text(json.dumps({"025_mug": about}))
    return folder


def use(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let ManiSkill and the benchmark, which may be loaded, look for assets in a directory of `furnish`."""
    from mani_skill.utils.assets import DATA_SOURCES
    from mani_skill.utils.building.actors import ycb
    from mikasa_robo_suite.vla.memory_envs import shell_game_pick_vla, shell_game_push_vla, shell_game_touch_vla

    from engram.envs.mikasa import task

    for module in (task, ycb, shell_game_touch_vla, shell_game_push_vla, shell_game_pick_vla):
        monkeypatch.setattr(module, "ASSET_DIR", folder / "data")
    monkeypatch.setattr(DATA_SOURCES["ycb"], "output_dir", folder / "data")


def _parts() -> list[trimesh.Trimesh]:
    """Convex pieces in the mug's frame: the planks of the wall, the bottom, the handle."""
    plank = _box([WALL, 2 * RADIUS * np.tan(np.pi / SIDES), 2 * HALF[2]], [RADIUS - WALL / 2, 0, 0])
    wall = [plank.copy().apply_transform(rotation_matrix(turn, [0, 0, 1])) for turn in _turns()]
    bottom = trimesh.creation.cylinder(RADIUS, WALL, sections=SIDES)
    cup = [*wall, bottom.apply_translation([0, 0, WALL / 2 - HALF[2]])]
    for part in cup:
        part.apply_translation([AXIS, 0, 0])
    return [*cup, *_handle()]


def _turns() -> np.ndarray:
    return np.arange(SIDES) * 2 * np.pi / SIDES


def _handle() -> list[trimesh.Trimesh]:
    """An upright bar and two arms from the wall to it."""
    inside, outside = AXIS + RADIUS - WALL / 2, HALF[0]
    length, height = outside - inside, BAR[2] / 2 - REACH
    arms = [_box([length, BAR[1], 2 * REACH], [inside + length / 2, 0, z]) for z in (-height, height)]
    return [*arms, _box(BAR, [outside - BAR[0] / 2, 0, 0])]


def _box(size: list | np.ndarray, centre: list) -> trimesh.Trimesh:
    return trimesh.creation.box(size).apply_translation(centre)


def _painted(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh in one colour; texture coordinates are there because the file's format asks for them."""
    material = trimesh.visual.material.SimpleMaterial(diffuse=[60, 90, 180, 255])
    mesh.visual = trimesh.visual.TextureVisuals(uv=np.zeros((len(mesh.vertices), 2)), material=material)
    return mesh


if __name__ == "__main__":
    import sys

    print(furnish(Path(sys.argv[1])))
