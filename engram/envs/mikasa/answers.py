"""What was to be remembered in an episode of MIKASA-Robo, and what the robot chose: words for reports and swaps."""

import numpy as np
from mani_skill.envs.sapien_env import BaseEnv

from engram.envs.mikasa import SHELL

NEAR = 0.05  # metres: the benchmark's own bound for a touch
BESIDE = 0.1  # metres: half-way to the next cup of the shell game, which is touched, pushed or held off its middle


def answer(name: str, sim: BaseEnv) -> str | None:
    """The right candidate ("lime", "star", "red torus"), or the place to return to (metres); None: no such thing."""
    if name == "TakeItBack":
        x, y, _ = sim.oracle_info[0].tolist()
        return f"{x:.2f} {y:.2f}"
    actors = candidates(name, sim)
    return list(actors)[int(_right(name, sim)[0])] if actors else None


def choice(name: str, sim: BaseEnv) -> str | None:
    """The candidate nearest to the tool centre, if within `NEAR`; a cup, if within `BESIDE`."""
    hand = sim.agent.tcp.pose.p[0].cpu().numpy()
    away = {
        label: float(np.linalg.norm(p.pose.p[0].cpu().numpy() - hand)) for label, p in candidates(name, sim).items()
    }
    nearest = min(away, key=lambda label: away[label], default=None)
    return nearest if nearest is not None and away[nearest] <= (BESIDE if name in SHELL else NEAR) else None


def candidates(name: str, sim: BaseEnv) -> dict:
    """Label -> object, in the benchmark's order; empty for tasks in which nothing is chosen."""
    if name in SHELL:
        return {"left": sim.mug_left, "center": sim.mug_center, "right": sim.mug_right}
    if "ShapeAndColor" in name:
        colors = ("red", "lime", "blue")
        kinds = {key: f"{colors[kind['color_id']]} {kind['shape']}" for key, kind in sim.shape_color_dict.items()}
        return {kinds[key]: actor for key, actor in sim.shape_actors.items()}
    if "Shape" in name:
        return {sim.SHAPE_MAPPING[key]: actor for key, actor in sim.shape_actors.items()}
    if "Color" in name:
        return {sim.COLOR_MAPPING[key][0].lower(): actor for key, actor in sim.cubes.items()}
    return {}


def _right(name: str, sim: BaseEnv):
    """The number of the right candidate, a tensor (1,)."""
    if name.startswith("FindImposter") and "ShapeAndColor" not in name:
        return sim.imposter_key
    if name in SHELL:
        return sim.cup_with_ball_number
    return sim.true_color_indices if name.startswith("RememberColor") else sim.true_shape_indices
