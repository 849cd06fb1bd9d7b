"""How policies and world models are trained: plain values, part of a run's identity. Loads without torch, so that
`--help` is quick."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args


@dataclass(frozen=True)
class Settings:
    """What is shown, how long and how fast to learn."""

    updates: int = 1000
    """Optimizer steps, one per window."""
    slots: int = 8
    """Episodes played side by side: rows of a window."""
    ticks: int | Literal["episode"] = "episode"
    """Ticks of a window; "episode": one whole episode in each row."""
    loader: Literal["episodic", "group", "shuffled"] = "episodic"
    """group: some ticks of each episode (as many as --settings.ticks), drawn at random and in order (MemoryVLA's);
    shuffled: independent frames, only for policies without memory."""
    shown: Literal["all", "keyframes"] = "all"
    """keyframes: of each episode only the ticks at which the hand has moved 0.01 m or turned 0.4 rad since the last one
    shown, or 120 ticks went by; they keep their ticks, and their chunks the actions of all ticks."""
    start: str = "pretrained"
    """The weights to begin with: pretrained (those that ship), scratch (random ones), or the folder of a checkpoint."""
    seed: int = 0
    """Seed of the random weights and of the order of the demonstrations."""
    lr: float = 2e-3
    """Peak learning rate of AdamW; a cosine ends it at a tenth."""
    warmup: int = 50
    """Updates in which the learning rate rises."""
    weight_decay: float = 0.01
    """Weight decay, applied to matrices only and never to the initial memory."""
    clip: float = 1.0
    """Bound of the gradient norm (inf: none); the share of clipped steps is logged."""
    average: float = 0.0
    """What is saved is the exponential average of the weights, with this decay an update (0: the last weights)."""
    emphasis: float = 0.0
    """How much more a tick counts in the loss where the expert's action changes: 1 + emphasis * change / mean change
    (0: all ticks alike). Against policies that copy their own motion instead of remembering (cf. arXiv 2106.06452)."""
    save: int = 100
    """Updates between two checkpoints."""
    log: int = 20
    """Updates between two lines of metrics."""
    workers: int = 0
    """Loader processes; the batches do not depend on it. Beside a GPU, features then stay in main memory."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto: on the GPU if there is one. Results differ in their last digits."""
    tensorboard: bool = True
    """Show metrics in OUT/tensorboard too, if TensorBoard is installed."""

    def __post_init__(self):
        require_choices(self)
        require("start", self.start, _is_start(self.start), "pretrained, scratch or a checkpoint's folder (./A)")
        least_of = dict.fromkeys(("updates", "slots", "save", "log"), 1)
        least_of |= dict.fromkeys(("seed", "warmup", "workers"), 0)
        for name, least in least_of.items():
            require(name, getattr(self, name), getattr(self, name) >= least, f"at least {least}")
        require("ticks", self.ticks, _is_ticks(self.ticks), "at least 1, or 'episode'")
        group = self.loader == "group" and self.ticks == "episode"
        require("ticks", self.ticks, not group, "a number of ticks for the loader 'group', such as 16")
        require("lr", self.lr, 0 < self.lr < math.inf, "a finite number above 0")
        require("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "a finite number, 0 or more")
        require("average", self.average, 0 <= self.average < 1, "0 or more and below 1, such as 0.999")
        require("emphasis", self.emphasis, 0 <= self.emphasis < math.inf, "a finite number, 0 or more")
        require("clip", self.clip, self.clip > 0, "a number above 0, or inf for no bound")

    def identity(self) -> dict:
        """What decides the weights: all but how the work is done and shown."""
        later = {"emphasis": 0.0, "shown": "all"}  # runs of before these came go on
        new = tuple(name for name, off in later.items() if getattr(self, name) == off)
        how = ("tensorboard", "device", *new)
        return {name: value for name, value in asdict(self).items() if name not in how} | {"workers": 0}


@dataclass(frozen=True)
class WorldSettings:
    """How long and how fast to learn. ValueError for a value that makes no sense."""

    updates: int = 2000
    """Optimizer steps."""
    rows: int = 8
    """Presents with their futures per update."""
    lr: float = 1e-3
    """Peak learning rate of AdamW; a cosine ends it at a tenth. Published weights want about 1e-5."""
    warmup: int = 50
    """Updates in which the learning rate rises."""
    weight_decay: float = 0.01
    """Of matrices only."""
    clip: float = 1.0
    """Bound of the gradient norm (inf: none)."""
    seed: int = 0
    """Of the order of what is shown and of its noise."""
    save: int = 100
    """Updates between two checkpoints."""
    log: int = 20
    """Updates between two lines of metrics."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    bfloat16: bool = False
    """Compute in it where autocast does; the weights stay float32. For large models on a GPU."""
    recompute: bool = False
    """Keep no activations for the backward pass but those between blocks: slower, and a fraction of the memory."""

    def __post_init__(self):
        require_choices(self)
        for name, least in {"updates": 1, "rows": 1, "save": 1, "log": 1, "seed": 0, "warmup": 0}.items():
            require(name, getattr(self, name), getattr(self, name) >= least, f"at least {least}")
        require("lr", self.lr, 0 < self.lr < math.inf, "a finite number above 0")
        require("clip", self.clip, self.clip > 0, "a number above 0, or inf for no bound")
        require("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "a finite number, 0 or more")

    def identity(self) -> dict:
        """What decides the weights."""
        return {name: value for name, value in asdict(self).items() if name not in ("device", "recompute")}


def require_choices(options: Any) -> None:
    """ValueError unless every field of a dataclass that is one of several words holds one of them."""
    for field in fields(options):
        known, found = get_args(field.type), getattr(options, field.name)
        if known and isinstance(known[0], str):
            require(field.name, found, found in known, f"one of {', '.join(known)}")


def require(name: str, found: object, sound: bool, expected: str) -> None:
    """ValueError that says all three unless `sound`."""
    if not sound:
        raise ValueError(f"{name}: expected {expected}, found {found!r}; choose such a value")


def _is_start(start: str) -> bool:
    return start in ("pretrained", "scratch") or "/" in start


def _is_ticks(ticks: object) -> bool:
    return ticks == "episode" or (isinstance(ticks, int) and ticks >= 1)
