"""The design of a policy: plain values, saved with every checkpoint. Loads without torch, so that `--help` is quick."""

from dataclasses import dataclass, fields
from typing import Literal, get_args


@dataclass(frozen=True)
class Design:
    """Everything that decides a policy's shape and how its memory is written."""

    memory: Literal["recurrent", "first-frame", "last-frames"] = "recurrent"
    """recurrent: muVLA's memory tokens; first-frame, last-frames: references that see frames kept."""
    m: int = 4
    """recurrent: number of memory tokens; 0 is the memoryless policy."""
    carried: bool = True
    """recurrent: False lets the m tokens think at every tick and carries nothing: a memoryless policy of the same size
    and compute."""
    rule: float | str = "gated"
    """recurrent: how memory is written: plain (paper), gated, or the rate of an ema (paper: 0.1)."""
    initial_std: float = 1.0
    """recurrent: scale of the learned initial memory (paper: 0.02)."""
    tbptt: int | None = None
    """recurrent: K, the ticks that a gradient may cross; None is the whole window."""
    frames: int = 4
    """last-frames: how many frames the policy sees, the present one included (2 or more)."""
    mask: Literal["full", "insulated"] = "insulated"
    """full (paper): context and memory see one another; insulated: the context does not see memory."""
    trained: Literal["slots", "language", "all"] = "slots"
    """What learns: memory and action slots; all but the vision tower; everything."""
    chunk: int = 4
    """Actions planned at once."""
    replan: int = 1
    """Ticks between plans in deployment; 1 plans anew at every tick."""
    loss: Literal["huber", "l1", "l2"] = "huber"
    """Of the action expert; l1 is the paper's."""
    size: Literal["s", "m", "l"] = "s"
    """Of the tiny backbone; pretrained weights ship for s."""

    def __post_init__(self):
        for field in fields(self):
            known, found = get_args(field.type), getattr(self, field.name)
            if known and isinstance(known[0], str) and found not in known:
                raise ValueError(f"{field.name}: expected one of {', '.join(known)}, found {found!r}")
        if self.m < 0:
            raise ValueError(f"m: expected 0 or more memory tokens, found {self.m}; 0 is the memoryless policy")
        if self.tbptt is not None and self.tbptt < 1:
            raise ValueError(f"K (tbptt): expected at least 1 tick, or none for the whole window, found {self.tbptt}")
        if self.frames < 2:
            raise ValueError(f"frames: expected at least 2, the present one included, found {self.frames}")
