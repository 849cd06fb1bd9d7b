"""The data format, written once: what a robot sees, what it is told to do, what a training window holds.

Legend for shapes: B rows (episodes), T ticks, C cameras, H W pixels, P proprioception, A action, N chunk length.
A tick is one control period; every time in Engram is a whole number of ticks since the episode began.
"""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Spec:
    """What an environment or data set gives and a policy expects; both sides compare theirs before they start."""

    cameras: tuple[str, ...]
    height: int
    width: int
    proprio_dim: int
    action_dim: int
    control_hz: float

    def require(self, found: "Spec", where: str) -> None:
        """Raise ValueError naming the first field in which `found` (of `where`) differs from this spec."""
        for field in fields(self):
            expected, got = getattr(self, field.name), getattr(found, field.name)
            if expected != got:
                raise ValueError(
                    f"{where}: expected {field.name} {expected}, found {got}; "
                    f"use data and an environment with the {field.name} that the policy was built for"
                )


@dataclass(frozen=True)
class Observation:
    """One control tick (leading axes B) or a window of ticks (leading axes B T) of every row.

    images        uint8   (..., C, H, W, 3)  RGB, cameras in the order of `Spec.cameras`
    proprio       float32 (..., P)           metres, radians, gripper opening in [0, 1]
    instruction   one string per row (and tick, row-major in a window): what the robot is told to do
    tick          int64   (...,)             control tick of this observation
    capture_tick  int64   (...,)             tick at which the images were taken; <= tick
    action        float32 (..., A)           the action executed before this tick (zeros at the first)
    """

    images: UInt8[Tensor, "*lead C H W 3"]
    proprio: Float[Tensor, "*lead P"]
    instruction: tuple[str, ...]
    tick: Int64[Tensor, "*lead"]
    capture_tick: Int64[Tensor, "*lead"]
    action: Float[Tensor, "*lead A"]

    def at(self, t: int) -> "Observation":
        """Tick `t` of a window: (B, T, ...) -> (B, ...)."""
        ticks = self.tick.shape[1]
        text = self.instruction[t::ticks]
        return replace(self, instruction=text, **{name: value[:, t] for name, value in self._tensors().items()})

    def flat(self) -> "Observation":
        """A window as one batch of independent frames: (B, T, ...) -> (B*T, ...)."""
        return replace(self, **{name: value.flatten(0, 1) for name, value in self._tensors().items()})

    def rows(self, index: Tensor) -> "Observation":
        """The rows of a single tick that `index` (int64) names, in its order."""
        text = tuple(self.instruction[i] for i in index.tolist())
        return replace(self, instruction=text, **{name: value[index] for name, value in self._tensors().items()})

    def to(self, device: torch.device | str) -> "Observation":
        """The same observation on another device."""
        return replace(self, **{name: value.to(device) for name, value in self._tensors().items()})

    def _tensors(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "instruction"}


@dataclass(frozen=True)
class Chunk:
    """Planned actions, float32 (B, N, A), in the environment's units; row b's first action is for its current tick."""

    actions: Float[Tensor, "B N A"]


@dataclass(frozen=True)
class Window:
    """T consecutive ticks of B slots: the unit of training.

    obs        observations, leading axes B T
    target     float32 (B, T, N, A)  expert actions of this tick and the N-1 after it
    target_ok  bool    (B, T, N)     False where the chunk runs past its episode's end
    first      bool    (B, T)        an episode starts at this tick
    valid      bool    (B, T)        False for padding after the end of an episode-aligned window
    frame      int64   (B, T)        index of the frame in its data set (key of the feature store)
    features   float   (B, T, ...)   what the frozen part of the backbone makes of each frame, or None
    weight     float32 (B, T)        how much a tick counts in the loss, 1 in the mean of the data set; None: all alike
    """

    obs: Observation
    target: Float[Tensor, "B T N A"]
    target_ok: Bool[Tensor, "B T N"]
    first: Bool[Tensor, "B T"]
    valid: Bool[Tensor, "B T"]
    frame: Int64[Tensor, "B T"]
    features: Float[Tensor, "B T ..."] | None = None
    weight: Float[Tensor, "B T"] | None = None

    @property
    def ticks(self) -> int:
        """Number of ticks T."""
        return self.first.shape[1]

    def to(self, device: torch.device | str) -> "Window":
        """The same window on another device; images that stand beside features are not moved but made there."""
        obs = self.obs
        if self.features is not None:
            made = torch.zeros(1, dtype=torch.uint8, device=device).expand(obs.images.shape)
            obs = replace(obs, images=made)
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "obs"}
        moved = {name: None if value is None else value.to(device) for name, value in tensors.items()}
        return replace(self, obs=obs.to(device), **moved)
