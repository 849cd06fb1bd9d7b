"""The preset "paper": muVLA's published choices (arXiv 2606.12497 and its code) as values, on our backbone."""

from dataclasses import replace
from typing import Any

from engram.policies.design import Design
from engram.settings import Settings

# One optimizer step per window of K = 2 ticks: the published coupling.
DESIGN = {
    "memory": "recurrent", "m": 64, "rule": "plain", "initial_std": 0.02, "read_scale": 1.0, "standardise": False,
    "tbptt": 2, "mask": "full", "trained": "language", "chunk": 8, "loss": "l1",
}  # fmt: skip
SETTINGS = {"ticks": 2}


def published(design: Design, settings: Settings) -> tuple[Design, Settings]:
    """muVLA's published choices on our backbone: DESIGN and SETTINGS, and else what was given.

    What was given must be the default or the published value, or else ValueError. A backbone from scratch trains whole.

    Not the paper's: the weights of the context stream learn themselves (LoRA) and the vision tower not at all; learning
    rate 2e-3, 50 updates of warm-up (5e-4, 2000 from a tenth) and AdamW's second beta 0.95 (0.999); gradients are
    clipped at 1 (not at all); weight decay spares vectors and the initial memory; 1000 updates of 8 (150,000 of 32);
    float32 (bfloat16); images are not augmented; actions are normalised by mean and deviation (quantiles, clipped);
    and a chunk's tail past the end of its episode asks for nothing (it repeats the last action).
    """
    whole = {"trained": "all"} if settings.start == "scratch" else {}
    design = _with(design, Design(), DESIGN | whole, "design")
    return design, _with(settings, Settings(), SETTINGS, "settings")


def _with(given: Any, default: Any, choices: dict, name: str) -> Any:
    for key, choice in choices.items():
        option, found = f"--{name}.{key}", getattr(given, key)
        if found not in (choice, getattr(default, key)):
            do = f"leave {option} or --preset out"
            raise ValueError(f"{option}: expected {choice}, the published value, found {found}; {do}")
    return replace(given, **choices)
