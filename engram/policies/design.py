"""The design of a policy: plain values, saved with every checkpoint. Loads without torch, so that `--help` is quick."""

import math
from dataclasses import asdict, dataclass, field
from typing import Literal

from engram.settings import Settings, require, require_choices

AS_NOTED = "memory is recurrent, carried, gated, standardised and read 4 times as large, under the mask insulated"


@dataclass(frozen=True)
class BankDesign:
    """MemoryVLA's bank and diffusion expert, for `memory` "bank"; nothing here concerns other policies."""

    capacity: int = 16
    """L, entries kept; 0 is the memoryless diffusion policy."""
    streams: Literal["both", "perceptual", "cognitive"] = "both"
    """What is remembered: the tokens of what is where, the one of what it means, or both."""
    when: Literal["every", "keyframes"] = "every"
    """When the bank is written: each n-th tick, or when the hand has moved 0.01 m or turned 0.4 rad, and at the latest
    after 120 ticks (as the paper thins out demonstrations of real robots)."""
    every: int = 1
    """every: n, ticks between two writes."""
    time: Literal["age", "index", "none"] = "age"
    """What keys know of their entry: its age in ticks, the number of its write (as in the released code), nothing."""
    merge: Literal["weighted", "plain", "fifo"] = "weighted"
    """What a full bank does: merge its most alike neighbours, by the writes in each or half and half (paper), or drop
    the oldest entry."""
    write: Literal["raw", "fused"] = "raw"
    """What is written: tokens as perceived, or as fused with what was remembered (paper)."""
    aligned: bool = True
    """Both streams merge the same entries (paper: each its own)."""
    form: Literal["compact", "paper"] = "compact"
    """How a stream is read: pre-norm with several heads, silent at the start; or post-norm with one head."""
    heads: int = 4
    """Heads of the compact form."""
    blocks: int = 1
    """Cross-attentions after one another (paper: 2)."""
    fusion: Literal["gate", "add"] = "gate"
    """How present and past become one."""
    expert: Literal["xs", "S", "B", "L"] = "xs"
    """Size of the diffusion transformer."""
    draws: int = 4
    """Noise levels at which the expert sees each tick of a window."""
    steps: int = 10
    """Denoising steps of a plan (DDIM)."""
    guidance: float = 1.5
    """How far a plan is pushed towards what the cognitive token asks for; 1 is not at all."""

    def check(self) -> None:
        """ValueError for a value that no policy can be built with."""
        require_choices(self)
        require("bank.capacity (L)", self.capacity, self.capacity >= 0, "0 or more entries")
        for name in ("every", "heads", "blocks", "draws"):
            require(f"bank.{name}", getattr(self, name), getattr(self, name) >= 1, "at least 1")
        require("bank.steps", self.steps, 1 <= self.steps <= 100, "1 to 100 denoising steps")
        require("bank.guidance", self.guidance, 0 <= self.guidance < math.inf, "a finite number, 0 or more")


@dataclass(frozen=True)
class Design:
    """Everything that decides a policy's shape and how its memory is written."""

    memory: Literal["recurrent", "first-frame", "last-frames", "bank"] = "recurrent"
    """recurrent: muVLA's memory tokens; first-frame, last-frames: references that see frames kept; bank: MemoryVLA."""
    m: int = 8
    """recurrent: number of memory tokens; 0 is the memoryless policy."""
    carried: bool = True
    """recurrent: False lets the m tokens think at every tick and carries nothing: a memoryless policy of the same size
    and compute."""
    rule: float | str = "gated"
    """recurrent: how memory is written: plain (paper), gated, or the rate of an ema (paper: 0.1)."""
    initial_std: float = 1.0
    """recurrent: scale of the learned initial memory (paper: 0.02)."""
    read_scale: float = 4.0
    """recurrent: how many times larger than kept the memory enters the backbone, so that layers do not drown it
    (paper: 1)."""
    standardise: bool = True
    """recurrent: before training, measure mean and deviation of the hidden states on demonstrations; they are centred
    and scaled by them before they are written (paper: no)."""
    notes: bool = False
    """recurrent: memory begins as the notes that the backbone was pretrained to take (decision 0009), and neither
    initial_std nor a measurement is used; for weights that know notes: those for MIKASA-Robo's pictures."""
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
    ensemble: float = 0.0
    """Weight of a plan in what is played, relative to the next newer one that still reaches as far; 0 plays the newest
    plan alone (temporal ensembling, arXiv 2304.13705, where the oldest weighs most)."""
    loss: Literal["huber", "l1", "l2"] = "huber"
    """Loss of the action expert; l1 is the paper's. A diffusion expert has its own."""
    size: Literal["s", "m", "l"] = "s"
    """Size of the tiny backbone; pretrained weights ship for s."""
    bank: BankDesign = field(default_factory=BankDesign)

    def __post_init__(self):
        require_choices(self)
        require("m", self.m, self.m >= 0, "0 or more memory tokens")
        require("initial_std", self.initial_std, 0 <= self.initial_std < math.inf, "a finite number, 0 or more")
        require("rule", self.rule, _is_rule(self.rule), "'plain', 'gated' or an ema rate in [0, 1]")
        require("read_scale", self.read_scale, 0 < self.read_scale < math.inf, "a finite number above 0")
        sound = self.tbptt is None or self.tbptt >= 1
        require("K (tbptt)", self.tbptt, sound, "at least 1 tick, or none for the whole window")
        require("notes", self.notes, not self.notes or self._as_noted(), f"False unless {AS_NOTED}")
        require("frames", self.frames, self.frames >= 2, "at least 2, the present one included")
        require("chunk", self.chunk, self.chunk >= 1, "at least 1 action")
        require("replan", self.replan, 1 <= self.replan <= self.chunk, f"1 to {self.chunk} ticks (the chunk)")
        require("ensemble", self.ensemble, 0 <= self.ensemble <= 1, "a weight from 0 to 1")
        self.bank.check()

    def identity(self) -> dict:
        """What decides the weights; of a bank only where there is one, so that runs of before it came go on."""
        return {name: value for name, value in asdict(self).items() if name != "bank" or self.memory == "bank"}

    def _as_noted(self) -> bool:
        """Whether memory is of the kind that backbones are pretrained to take notes with."""
        carried = self.memory == "recurrent" and self.m > 0 and self.carried and self.rule == "gated"
        return carried and self.standardise and self.read_scale == 4.0 and self.mask == "insulated"


def _is_rule(rule: float | str) -> bool:
    return rule in ("plain", "gated") or (isinstance(rule, float) and 0 <= rule <= 1)


def require_whole_windows(design: Design, settings: Settings) -> None:
    """ValueError unless a window of so many ticks divides into pieces of K: the last of each would be a shorter K."""
    k, ticks = design.tbptt, settings.ticks
    if k is not None and ticks != "episode" and ticks % k:
        expected = f"a divisor of the window (--settings.ticks {ticks}), which no gradient leaves"
        raise ValueError(f"K (--design.tbptt): expected {expected}, found {k}; change one of the two")
