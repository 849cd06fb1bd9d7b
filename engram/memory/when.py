"""When a memory is written: rules whose state, if any, is in the carry, the same in training, evaluation and serving.

every      each n-th tick of an episode
keyframes  when the hand has moved or turned since the last write, or has waited long (MemoryVLA's filter of real
           demonstrations: 0.01 m, 0.4 rad, at most 120 frames)

Legend: B rows, T ticks, P proprioception.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from engram import carry as carries
from engram.carry import Carry

ANCHOR, ANCHOR_TICK = "memory/anchor", "memory/anchor_tick"  # pose (B,6) and tick (B,) of the last write


@dataclass(frozen=True)
class Every:
    """Each n-th tick, from the first on; ValueError for n below 1."""

    ticks: int = 1

    def __post_init__(self):
        if self.ticks < 1:
            raise ValueError(f"every: expected at least 1 tick between writes, found {self.ticks}; raise it")

    def writes(self, ticks: int) -> range:
        """How many writes an episode of so many ticks may hold."""
        due = -(-ticks // self.ticks)
        return range(due, due + 1)

    def init(self, batch: int, device: torch.device) -> Carry:
        """Nothing to remember."""
        return {}

    def due(self, carry: Carry, proprio_BP: Tensor, tick_B: Tensor) -> tuple[Tensor, Carry]:
        """By the tick alone."""
        return tick_B % self.ticks == 0, {}


@dataclass(frozen=True)
class Keyframes:
    """When the hand moved by more than `metres` or turned by more than `radians` since the last write, or `gap` ticks
    went by.

    Proprioception must begin with x, y, z and three angles. Angles are compared as they are, the short way round.
    """

    metres: float = 0.01
    radians: float = 0.4
    gap: int = 120

    def __post_init__(self):
        if not (self.metres >= 0 and self.radians >= 0 and self.gap >= 1):
            found = f"{self.metres} m, {self.radians} rad, {self.gap} ticks"
            raise ValueError(f"keyframes: expected distances of 0 or more and a gap of 1 or more, found {found}")

    def writes(self, ticks: int) -> range:
        """How many writes an episode of so many ticks may hold: the first tick's, and one after each gap at least."""
        return range(1 + (ticks - 1) // self.gap, ticks + 1)

    def init(self, batch: int, device: torch.device) -> Carry:
        """No write yet: whatever comes is due."""
        never = torch.full((batch,), -1, dtype=torch.int64, device=device)
        return {ANCHOR: torch.zeros(batch, 6, device=device), ANCHOR_TICK: never}

    def due(self, carry: Carry, proprio_BP: Tensor, tick_B: Tensor) -> tuple[Tensor, Carry]:
        """By pose and tick since the last write."""
        if proprio_BP.shape[1] < 6:
            expected, found = "proprioception that begins with x, y, z and three angles", proprio_BP.shape[1]
            raise ValueError(f"keyframes: expected {expected}, found {found} numbers; write every n-th tick instead")
        pose_BP = proprio_BP[:, :6]
        gone_BP = pose_BP - carry[ANCHOR]
        turned_B3 = (gone_BP[:, 3:] + torch.pi) % (2 * torch.pi) - torch.pi
        far_B = (gone_BP[:, :3].norm(dim=1) > self.metres) | (turned_B3.norm(dim=1) > self.radians)
        last_B = carry[ANCHOR_TICK]
        due_B = far_B | (last_B < 0) | (tick_B - last_B >= self.gap)
        return due_B, {ANCHOR: pose_BP, ANCHOR_TICK: tick_B}


Rule = Every | Keyframes  # `due` says which rows write at a tick, and what of the carry changes if they do


def due_in(
    rule: Rule,
    carry: Carry,
    proprio_BTP: Float[Tensor, "B T P"],
    tick_BT: Int64[Tensor, "B T"],
    first_BT: Bool[Tensor, "B T"],
    valid_BT: Bool[Tensor, "B T"],
) -> tuple[Bool[Tensor, "B T"], Carry]:
    """Which valid ticks of a window write, rows with `first` forgetting before; and the rule's carry after it."""
    fresh, due = rule.init(len(tick_BT), tick_BT.device), []
    state = {key: carry[key] for key in fresh}
    for t in range(tick_BT.shape[1]):
        state = carries.where(first_BT[:, t], fresh, state)
        due_B, moved = rule.due(state, proprio_BTP[:, t], tick_BT[:, t])
        due.append(due_B & valid_BT[:, t])
        state = carries.where(due[-1], moved, state)
    return torch.stack(due, 1), state


def writes_of(
    rule: Rule, state_TP: Float32[np.ndarray, "T P"], tick_T: Int64[np.ndarray, "T"]
) -> Int64[np.ndarray, "K"]:
    """The places in one episode, given whole, at which a rule writes."""
    proprio_1TP, tick_1T = torch.from_numpy(state_TP).unsqueeze(0), torch.from_numpy(tick_T).unsqueeze(0)
    none_1T = torch.zeros_like(tick_1T, dtype=torch.bool)
    due_1T, _ = due_in(rule, rule.init(1, tick_1T.device), proprio_1TP, tick_1T, none_1T, ~none_1T)
    return np.flatnonzero(due_1T[0].numpy())
