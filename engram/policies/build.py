"""From a design (plain values, saved with every checkpoint) to a policy."""

from dataclasses import dataclass, fields
from typing import Literal, get_args

import torch

from engram.backbones.tiny import SIZES, Tiny
from engram.data.normalise import Normaliser
from engram.experts.regression import Regression
from engram.memory.frames import FirstFrame, LastFrames
from engram.memory.recurrent import Recurrent
from engram.policies.base import Policy
from engram.policies.before import Before
from engram.policies.through import Through
from engram.policies.trunk import Head, Trunk
from engram.types import Spec


@dataclass(frozen=True)
class Design:
    """Everything that decides a policy's shape and how its memory is written.

    memory       "recurrent" (muVLA), "first-frame" or "last-frames" (references)
    m            recurrent: number of memory tokens; 0 is the memoryless policy
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


def build(design: Design, spec: Spec, action: Normaliser, backbone: Tiny | None = None) -> Policy:
    """The policy of a design; `backbone` carries pretrained weights, without it they are random."""
    if backbone is None:
        backbone = Tiny(len(spec.cameras), spec.proprio_dim, **SIZES[design.size])
    trunk = Trunk(backbone, design.mask, design.trained)
    head = Head(Regression(backbone.width, spec.action_dim, design.chunk, design.loss), action)
    with torch.no_grad():  # slots begin as questions, the only slots that a pretrained backbone has met
        head.expert.slots += backbone.question
    if design.memory == "recurrent":
        memory = Recurrent(design.m, backbone.width, design.rule, design.initial_std) if design.m else None
        return Through(spec, trunk, memory, head, design.tbptt, design.replan)
    tokens = trunk.tokens_per_frame
    if design.memory == "first-frame":
        return Before(spec, trunk, FirstFrame(tokens, backbone.width), 1, head, design.replan)
    past = design.frames - 1
    return Before(spec, trunk, LastFrames(past, tokens, backbone.width), past, head, design.replan)
