"""How a policy is trained: plain values, part of a run's identity. Loads without torch, so that `--help` is quick."""

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True)
class Settings:
    """What is shown, how long and how fast to learn."""

    updates: int = 1000
    """Optimizer steps, one per window."""
    slots: int = 8
    """Episodes played side by side: rows of a window."""
    ticks: int | Literal["episode"] = "episode"
    """Ticks of a window; "episode": one whole episode in each row."""
    loader: Literal["episodic", "shuffled"] = "episodic"
    """shuffled: independent frames, for policies without memory alone."""
    start: Literal["pretrained", "scratch"] = "pretrained"
    """The weights to begin with: those that ship, or random ones."""
    seed: int = 0
    """Of the random weights and of the order of the demonstrations."""
    lr: float = 2e-3
    """Peak learning rate of AdamW; a cosine ends it at a tenth."""
    warmup: int = 50
    """Updates in which the learning rate rises."""
    weight_decay: float = 0.01
    """Of matrices alone, never of the initial memory."""
    clip: float = 1.0
    """Bound of the gradient norm; the share of clipped steps is logged."""
    save: int = 100
    """Updates between two checkpoints."""
    log: int = 20
    """Updates between two lines of metrics."""
    workers: int = 0
    """Loader processes; the batches do not depend on it."""
    tensorboard: bool = True
    """Show metrics in OUT/tensorboard too, if TensorBoard is installed."""

    def __post_init__(self):
        for name in ("updates", "slots", "save", "log"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}; choose a positive number")
        if self.ticks != "episode" and self.ticks < 1:
            raise ValueError(f"ticks: expected at least 1, or 'episode', found {self.ticks}; choose one of these")

    def identity(self) -> dict:
        """What decides the weights: all but how the work is done and shown."""
        return {name: value for name, value in asdict(self).items() if name != "tensorboard"} | {"workers": 0}
