"""A film of where memory tokens and action slots look, drawn over what the policy sees.

Rows are cameras; the left column is the attention of the memory tokens, the right one that of the action slots (alone
for a policy without memory). Above them, the phases of the episode; what has not been played yet is dim.

Legend: B rows, T ticks, C cameras, H W pixels, L layers, K kinds of slots (memory, action).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from engram.carry import Carry
from engram.envs.vector import VectorEnv
from engram.policies.attention import Looks, look
from engram.policies.base import Policy
from engram.policies.through import Through
from engram.rollout.episodes import Record, play, require_whole
from engram.rollout.video import write
from engram.types import Chunk, Observation, Window

SIDE, BAR, TITLE, DPI = 256, 14, 18, 100  # pixels: one picture, the bar of phases, the titles under it
PHASES = {"cue": "#d9a21b", "delay": "#8a93a0", "choice": "#2a9d6f"}
TITLES = ("memory tokens look at", "action slots look at")
DIM, OPAQUE = 0.35, 0.6  # light of what is still to come; how much the strongest heat hides


def film_attention(policy: Policy, make: Callable[[], gymnasium.Env], seed: int, out: Path) -> Record:
    """Play the episode of `seed`, write where the policy looked at every tick to `out` (mp4), and return its record.

    Attention is the mean over layers, heads and tokens; heat is relative to the strongest cell of the film, one scale
    for memory and one for action. Raises ValueError for a policy that engram.policies.attention cannot look into,
    EpisodeError when the environment fails.
    """
    watched, phases = _Watched(lookable(policy)), _Phases(make())
    fps = float(phases.metadata["render_fps"])
    with VectorEnv(lambda: phases, lanes=1, workers=0) as envs:
        (record,) = play(watched, envs, 1, [seed])
    require_whole(record)
    write(out, draw(watched.seen, phases.names[: len(watched.seen)]), fps)
    return record


def lookable(policy: Policy) -> Through:
    """The policy, as one that engram.policies.attention can look into; ValueError for another kind."""
    if not isinstance(policy, Through):
        raise ValueError(
            f"expected a policy of memory tokens (engram.policies.through.Through), found {type(policy).__name__}; "
            "attention films are drawn for muVLA and its memoryless reference"
        )
    return policy


class Glance(NamedTuple):
    """One tick of one episode: the images that the policy saw, and where it looked in them."""

    images: UInt8[Tensor, "C H W 3"]
    looks: Looks


def draw(seen: Sequence[Glance], phases: Sequence[str]) -> list[np.ndarray]:
    """The frames of a film, uint8 (BAR + TITLE + C * SIDE, K * SIDE, 3), one per tick and its phase's name."""
    heat_TKCHW = torch.stack([_kinds(glance.looks) for glance in seen])
    heat_TKCHW = heat_TKCHW / heat_TKCHW.amax((0, 2, 3, 4), keepdim=True)
    head = _head(phases, SIDE * heat_TKCHW.shape[1])
    return [
        np.concatenate([_dimmed(head, (t + 1) / len(seen)), _panels(glance.images, heat_TKCHW[t])])
        for t, glance in enumerate(seen)
    ]


def _kinds(looks: Looks) -> Float[Tensor, "K C G G"]:
    """Mean over layers of the only row, memory (where there is one) before action."""
    return torch.stack([kind[0].mean(0) for kind in (looks.memory, looks.action) if kind is not None])


def _panels(images_CHWX: Tensor, heat_KCHW: Tensor) -> np.ndarray:
    """A column per kind and a row per camera."""
    pixels_CXHW = F.interpolate(images_CHWX.permute(0, 3, 1, 2).float(), (SIDE, SIDE))
    smooth_KCHW = F.interpolate(heat_KCHW, (SIDE, SIDE), mode="bilinear").clamp(0, 1).numpy()
    colour = 255 * colormaps["inferno"](smooth_KCHW)[..., :3]
    mixed = pixels_CXHW.permute(0, 2, 3, 1).numpy()[None]
    mixed = mixed + OPAQUE * np.sqrt(smooth_KCHW)[..., None] * (colour - mixed)  # the root: weak heat shows, too
    return np.concatenate([np.concatenate(list(kind)) for kind in mixed], 1).astype(np.uint8)


def _head(phases: Sequence[str], width: int) -> np.ndarray:
    """A bar with a stretch per tick in its phase's colour, then titles and a legend: uint8 (BAR + TITLE, width, 3)."""
    height, tick = BAR + TITLE, width / len(phases)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="black")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))  # in pixels
    axes.axis("off")
    for t, phase in enumerate(phases):
        axes.broken_barh([(t * tick, tick)], (TITLE, BAR), color=PHASES[phase], linewidth=0)
    text: dict[str, Any] = {"fontsize": 7.5, "va": "center_baseline"}
    for column, title in enumerate(TITLES[-(width // SIDE) :]):
        axes.text(column * SIDE + 4, TITLE / 2, title, color="white", **text)
    for place, (phase, colour) in enumerate(PHASES.items()):
        axes.text(width - 4 - 36 * (len(PHASES) - 1 - place), TITLE / 2, phase, color=colour, ha="right", **text)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _dimmed(head: np.ndarray, played: float) -> np.ndarray:
    """The head with the part of the bar dim that is still to come; `played` in (0, 1]."""
    head, now = head.copy(), round(played * head.shape[1])
    head[:BAR, now:] = head[:BAR, now:] * DIM
    return head


class _Watched(Policy):
    """The policy itself, with a note kept of every observation that it is shown in one episode."""

    def __init__(self, inner: Through):
        super().__init__()
        self.inner, self.spec, self.chunk, self.replan = inner, inner.spec, inner.chunk, inner.replan
        self.ensemble = inner.ensemble
        self.seen: list[Glance] = []
        self.train(inner.training)

    def init(self, batch: int) -> Carry:
        return self.inner.init(batch)

    def observe(self, carry: Carry, obs: Observation, first_B: Tensor) -> Carry:
        self.seen.append(Glance(obs.images[0].cpu(), _on_cpu(look(self.inner, carry, obs, first_B))))
        return self.inner.observe(carry, obs, first_B)

    def act(self, carry: Carry) -> tuple[Chunk, Carry]:
        return self.inner.act(carry)

    def loss(self, carry: Carry, window: Window) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        return self.inner.loss(carry, window)


def _on_cpu(looks: Looks) -> Looks:
    return Looks(None if looks.memory is None else looks.memory.cpu(), looks.action.cpu())


class _Phases(gymnasium.Wrapper):
    """Keeps the name of the phase of every observation, from the last reset on."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.names: list[str] = []

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Reset and begin anew."""
        obs, info = self.env.reset(**options)
        self.names = [info["phase"]]
        return obs, info

    def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step and note the phase."""
        out = self.env.step(action)
        self.names.append(out[4]["phase"])
        return out
