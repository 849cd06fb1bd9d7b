"""The preset "paper": muVLA's published choices (arXiv 2606.12497 and its code) as values, on our backbone."""

from dataclasses import replace
from typing import Any

from engram.policies.design import Design
from engram.settings import Settings

# One optimizer step per window of K ticks: the published coupling.
DESIGN = {
    "memory": "recurrent", "m": 64, "rule": "plain", "initial_std": 0.02, "read_scale": 1.0, "standardise": False,
    "tbptt": 2, "mask": "full", "trained": "language", "chunk": 8, "loss": "l1",
}  # fmt: skip
VARIED = ("m", "tbptt", "memory")  # what the paper's own table varies: 0, 1 or 64 tokens, K of 1, 2 or 8, first frame


def published(design: Design, settings: Settings) -> tuple[Design, Settings]:
    """muVLA's published choices on our backbone: DESIGN, windows of K ticks, and else what was given.

    What was given must be the default (then the published value takes its place), the published value or one of VARIED,
    or else ValueError. A backbone from scratch trains whole.

    Not the paper's: the weights of the context stream learn themselves (LoRA) and the vision tower not at all; learning
    rate 2e-3, 50 updates of warm-up (5e-4, 2000 from a tenth) and AdamW's second beta 0.95 (0.999); gradients are
    clipped at 1 (not at all); weight decay spares vectors and the initial memory; 1000 updates of 8 (150,000 of 32);
    float32 (bfloat16); images are not augmented; actions are normalised by mean and deviation (quantiles, clipped);
    and a chunk's tail past the end of its episode asks for nothing (it repeats the last action).
    """
    whole = {"trained": "all"} if settings.start == "scratch" else {}
    varied = {key: getattr(design, key) for key in VARIED if getattr(design, key) != getattr(Design(), key)}
    design = _with(design, Design(), DESIGN | whole | varied, "design")
    return design, _with(settings, Settings(), {"ticks": design.tbptt}, "settings")


def _with(given: Any, default: Any, choices: dict, name: str) -> Any:
    for key, choice in choices.items():
        option, found = f"--{name}.{key}", getattr(given, key)
        if found not in (choice, getattr(default, key)):
            do = f"leave {option} or --preset out"
            raise ValueError(f"{option}: expected {choice}, the published value, found {found}; {do}")
    return replace(given, **choices)
