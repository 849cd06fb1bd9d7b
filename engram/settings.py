"""How a policy is trained: plain values, part of a run's identity. Loads without torch, so that `--help` is quick."""

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True)
class Settings:
    """What is shown, how long and how fast to learn.

    slots     episodes played side by side (rows of a window)
    ticks     ticks of a window: one optimizer step per window. "episode": one whole episode each
    loader    "episodic", or "shuffled": independent frames, for policies without memory alone
    start     "pretrained" (the shipped `tiny` weights) or "scratch"
    updates   optimizer steps; warmup of them at the start, then a cosine down to a tenth
    lr        peak learning rate of AdamW; weight_decay applies to matrices alone, never to the initial memory
    clip      gradient norm bound (the share of clipped steps is logged)
    save      updates between two checkpoints; log: between two lines of metrics
    workers   loader processes (batches do not depend on it)
    tensorboard   show metrics in OUT/tensorboard too, if TensorBoard is installed
    """

    updates: int = 1000
    slots: int = 8
    ticks: int | Literal["episode"] = "episode"
    loader: Literal["episodic", "shuffled"] = "episodic"
    start: Literal["pretrained", "scratch"] = "pretrained"
    seed: int = 0
    lr: float = 2e-3
    warmup: int = 50
    weight_decay: float = 0.01
    clip: float = 1.0
    save: int = 100
    log: int = 20
    workers: int = 0
    tensorboard: bool = True

    def __post_init__(self):
        for name in ("updates", "slots", "save", "log"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}; choose a positive number")
        if self.ticks != "episode" and self.ticks < 1:
            raise ValueError(f"ticks: expected at least 1, or 'episode', found {self.ticks}; choose one of these")

    def identity(self) -> dict:
        """What decides the weights: all but how the work is done and shown."""
        return {name: value for name, value in asdict(self).items() if name != "tensorboard"} | {"workers": 0}
