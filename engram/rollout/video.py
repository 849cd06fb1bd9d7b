"""An episode as a film: what the environment renders at every tick, H.264 for any browser."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import gymnasium
import numpy as np

from engram.envs.vector import VectorEnv
from engram.policies.base import Policy
from engram.rollout.episodes import Record, play, require_whole
from engram.rollout.interventions import Intervention

OUTCOME = ("success", "choice", "answer")


def film(
    policy: Policy,
    make: Callable[[], gymnasium.Env],
    seed: int,
    out: Path,
    intervention: Intervention | None = None,
    evaluated: Record | None = None,
) -> Record:
    """Play the episode of `seed` in this process, write its film to `out` (mp4), and return its record.

    `make()` gives an environment whose `render()` returns RGB, uint8 (H, W, 3). The film begins with the reset and
    has a frame per tick. `evaluated` is the record that it is to illustrate: no film is written of another outcome,
    since the rounding of another batch may tip a guess. Raises EpisodeError when the environment fails: half an episode
    is not a film.
    """
    camera = _Camera(make())
    with VectorEnv(lambda: camera, lanes=1, workers=0) as envs:
        (record,) = play(policy, envs, 1, [seed], intervention)
    require_whole(record)
    if evaluated is None or all(record[key] == evaluated[key] for key in OUTCOME):
        write(out, camera.frames, camera.fps)
    return record


def write(path: Path, frames: Sequence[np.ndarray], fps: float) -> None:
    """Write RGB frames, uint8 (H, W, 3) each, as H.264 in yuv420p; odd sides lose their last row or column."""
    height, width = (side - side % 2 for side in frames[0].shape[:2])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.mp4")
    with av.open(str(partial), "w", options={"movflags": "faststart"}) as file:
        stream = file.add_stream("libx264", rate=round(fps), options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            file.mux(stream.encode(picture))
        file.mux(stream.encode(None))
    os.replace(partial, path)


class _Camera(gymnasium.Wrapper):
    """Keeps what the environment renders, from the last reset on."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.frames: list[np.ndarray] = []
        self.fps = float(env.metadata["render_fps"])

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Reset and begin a new film."""
        out = self.env.reset(**options)
        self.frames = [self._picture()]
        return out

    def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step and take a frame."""
        out = self.env.step(action)
        self.frames.append(self._picture())
        return out

    def _picture(self) -> np.ndarray:
        picture = self.env.render()
        assert isinstance(picture, np.ndarray), "an environment that is filmed has render_mode rgb_array"
        return picture
