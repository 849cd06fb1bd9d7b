"""The design of a policy: plain values, saved with every checkpoint. Loads without torch, so that `--help` is quick."""

from dataclasses import dataclass, fields
from typing import Literal, get_args


@dataclass(frozen=True)
class Design:
    """Everything that decides a policy's shape and how its memory is written.

    memory       "recurrent" (muVLA), "first-frame" or "last-frames" (references)
    m            recurrent: number of memory tokens; 0 is the memoryless policy
    carried      recurrent: False lets the m tokens think at every tick and carries nothing: a memoryless policy of
                 the same size and compute
    rule         recurrent: "plain" (paper), "gated", or the rate of an ema (paper: 0.1)
    initial_std  recurrent: scale of the learned initial memory (paper: 0.02)
    tbptt        recurrent: K ticks that a gradient may cross; None is the whole window
    frames       last-frames: how many frames the policy sees, the present one included (2 or more)
    mask         "insulated" or "full" (paper); trained: "slots", "language" or "all" (policies/trunk.py)
    chunk        actions planned at once; replan: ticks between plans in deployment (1 = receding horizon)
    loss         "huber", "l1" (paper) or "l2"; size: of the `tiny` backbone
    """

    memory: Literal["recurrent", "first-frame", "last-frames"] = "recurrent"
    m: int = 4
    carried: bool = True
    rule: float | str = "gated"
    initial_std: float = 1.0
    tbptt: int | None = None
    frames: int = 4
    mask: Literal["full", "insulated"] = "insulated"
    trained: Literal["slots", "language", "all"] = "slots"
    chunk: int = 4
    replan: int = 1
    loss: Literal["huber", "l1", "l2"] = "huber"
    size: Literal["s", "m", "l"] = "s"

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
