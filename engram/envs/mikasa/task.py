"""One task of MIKASA-Robo-VLA in Engram's terms: frames, proprioception, phases, and the protocol's traps minded.

The simulator is ManiSkill's, one episode at a time, as the protocol has it (specs/mu_vla.md 3.1): two cameras of 128
pixels, `pd_ee_delta_pose`, actions clipped and, while the cue shows and while nothing does, replaced by zeros; success
at any tick ends the episode. The benchmark's own wrappers need an older gymnasium; this file does their part.
"""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("MS_SKIP_ASSET_DOWNLOAD_PROMPT", "1")  # a missing asset is an error, never a question
os.environ.setdefault("LP_NUM_THREADS", "1")  # of Mesa's software renderer: simulators run side by side, one a core

import gymnasium
import mani_skill.envs  # noqa: F401  registers what the tasks are made of
import mikasa_robo_suite.vla.memory_envs  # noqa: F401  registers the tasks
import numpy as np
from gymnasium import spaces
from mani_skill import ASSET_DIR
from mani_skill.envs.sapien_env import BaseEnv

from engram.envs.mikasa import CAMERAS, MUG, SHELL, MissingAssetsError, answers, usual_device
from engram.envs.mikasa.cameras import SENSORS, Cameras, hide_housing

CONTROL_HZ = 20
CUED = ("Remember", "FindImposter", "ShellGame")  # tasks that freeze the arm until the candidates are there
NO_RENDERER = ("physical device", "rendering device", "vk::createInstance")  # as SAPIEN says it; the last: no driver


class Task(gymnasium.Env):
    """The environment.

    Args:
        name: the task's id without `-VLA-v0`.
        strict: all as the protocol has it, at three times the time: the wrist camera's housing is drawn (without it
            less than 2 % of the base camera's pixels differ) and the film's camera is rendered after every step, which
            on a GPU moves objects and is done there in any case; on a CPU it changes nothing (tested).
        images: False leaves the images black and saves drawing them (for experts, which see the state).
        device: "cpu" or "gpu": where ManiSkill simulates and renders; by default a GPU, if torch finds one.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}

    def __init__(self, name: str, strict: bool = False, images: bool = True, device: str | None = None):
        self.name, self.strict, self.images, self.render_mode = name, strict, images, "rgb_array"
        self.device, self.over = device or usual_device(), True
        _require_assets(name)
        self._sim = _simulator(name, images, self.device)
        self._cameras: Cameras | None = None
        self._quick = images and not strict and self.device == "cpu"
        if self._quick:
            self.sim._obs_mode = "none"  # a step draws nothing; `Cameras` does
        self.limit = int(self._sim.get_wrapper_attr("_max_episode_steps"))
        picture = spaces.Box(0, 255, (128, 128, 3), np.uint8)
        pose = spaces.Box(-np.inf, np.inf, (7,), np.float32)
        self.observation_space = spaces.Dict({**dict.fromkeys(CAMERAS, picture), "proprio": pose})
        self.action_space = spaces.Box(-1.0, 1.0, (7,), np.float32)

    @property
    def sim(self) -> BaseEnv:
        """The benchmark's environment itself: privileged, for experts and tests."""
        return self._sim.unwrapped

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Start the episode of a seed, as the benchmark draws it."""
        super().reset(seed=seed)
        self._seen, self._told = self._sim.reset(seed=seed)
        self.tick, self.frames, self.over = 0, 0, False
        if self._quick and (self._cameras is None or self._cameras.scene is not self.sim.scene):
            self._cameras = Cameras(self.sim)  # a reset may build the scene anew
        elif self.images and not self.strict and not self._quick:
            hide_housing(self.sim)
            self._seen = self.sim.get_obs()
        return self._observe(), self._info()

    def step(self, action: np.ndarray):
        """One control tick. ValueError for an action that is not seven finite numbers."""
        action = np.asarray(action, np.float32)
        if action.shape != (7,) or not np.isfinite(action).all():
            raise ValueError(f"expected an action of 7 finite numbers, found {action}; check the policy's output")
        if self.over:
            raise ValueError("expected a running episode, found none; call reset first")
        moved = np.clip(action, -1.0, 1.0) if self.phase == "choice" else np.zeros(7, np.float32)
        self._seen, _, _, _, self._told = self._sim.step(moved)
        if self.images and (self.strict or self.device != "cpu"):
            self._sim.render()
        self.tick += 1
        success = self._success()
        ended = self.tick >= self.limit
        self.over = success or ended
        return self._observe(), float(success), success, ended and not success, self._info()

    def render(self) -> np.ndarray:
        """The scene as a person would film it, uint8 (512, 512, 3)."""
        return self._sim.render()[0].cpu().numpy()

    def close(self) -> None:
        """End the simulator."""
        self._sim.close()

    @property
    def phase(self) -> str:
        """What this tick shows: "cue", "delay" or "choice"; tasks without a cue are in their "choice" throughout."""
        cue_end, onset = self._phases()
        return "choice" if self.tick >= onset else "cue" if self.tick < cue_end else "delay"

    def _phases(self) -> tuple[int, int]:
        """Ticks at which the cue goes and at which the candidates come; zeros for tasks that have neither.

        In the shell game the cups come as the cue goes: the choice, from the first tick in which they hide the ball.
        """
        if not self.name.startswith(CUED):
            return 0, 0
        cue = int(self.sim.cue_steps_per_env[0])
        return cue, cue if self.name in SHELL else cue + int(self.sim.empty_steps_per_env[0])

    def _success(self) -> bool:
        return bool(self._told["success"].any())

    def _observe(self) -> dict[str, np.ndarray]:
        self.frames += self.images
        return {**self._pictures(), "proprio": proprioception(self.sim)}

    def _pictures(self) -> dict[str, np.ndarray]:
        if not self.images:
            return {camera: np.zeros((128, 128, 3), np.uint8) for camera in CAMERAS}
        if self._cameras is not None:
            return self._cameras.look()
        seen = self._seen["sensor_data"]
        return {camera: seen[sensor]["rgb"][0].cpu().numpy() for camera, sensor in SENSORS.items()}

    def _info(self) -> dict[str, Any]:
        told = self._told.get("language_instruction") or self.sim.LANGUAGE_INSTRUCTION
        cue_end, onset = self._phases()
        return {
            "instruction": told if isinstance(told, str) else told[0],
            "tick": self.tick,
            "phase": self.phase,
            "success": self.tick > 0 and self._success(),
            "choice": answers.choice(self.name, self.sim) if self.over else None,
            "answer": answers.answer(self.name, self.sim),
            "cue_end": cue_end,
            "onset": onset,
            "frames": self.frames,
        }


def _simulator(name: str, images: bool, device: str) -> Any:
    """The benchmark's environment; ImportError where nothing can render."""
    try:
        return gymnasium.make(
            f"{name}-VLA-v0",
            num_envs=1,
            obs_mode="rgb" if images else "none",
            control_mode="pd_ee_delta_pose",
            reward_mode="none",
            render_mode="rgb_array",
            sim_backend="physx_cpu" if device == "cpu" else "physx_cuda",
            render_backend=device if images else "none",
        )
    except RuntimeError as error:
        if not any(said in str(error) for said in NO_RENDERER):
            raise
        do = "run: make mikasa" if device == "cpu" else "run: make mikasa, or simulate on the CPU (device=cpu)"
        raise ImportError(
            f"mikasa/{name} renders with Vulkan (a GPU, or Mesa's lavapipe >= 25) and found no device; {do}"
        ) from error


def _require_assets(name: str) -> None:
    """MissingAssetsError naming the command for what is not part of the packages: the mug of the shell game."""
    if name in SHELL and not about_mugs().is_file():
        folder = str(about_mugs().parent).replace(str(Path.home()), "~", 1)  # it goes into tables that are published
        raise MissingAssetsError(f"mikasa/{name}: assets missing: expected the YCB mug at {folder}, found none; {MUG}")


def about_mugs() -> Path:
    """The file that comes with the mug of the shell game."""
    return ASSET_DIR / "assets/mani_skill2_ycb/info_pick_v0.json"


def proprioception(sim: BaseEnv) -> np.ndarray:
    """Position of the tool centre (metres), its roll, pitch and yaw (radians), and the gap between the fingers
    (metres), float32 (7,)."""
    pose = sim.agent.tcp.pose.raw_pose[0].cpu().numpy()
    fingers = float(sim.agent.robot.get_qpos()[0, -2:].sum())
    return np.array([*pose[:3], *_roll_pitch_yaw(*pose[3:].tolist()), fingers], np.float32)


def _roll_pitch_yaw(w: float, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Angles about the fixed x, y and z axes of a unit quaternion."""
    roll = np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = np.arcsin(np.clip(2 * (w * y - z * x), -1, 1))
    return roll, pitch, np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
