"""What makes memory be found: the standardised write, the larger read, or both? For the gated and the plain write.

The evidence that decision 0007 asks for: the quickstart's data and budget, eight tokens, every combination on equal
training seeds.

    engram study recipes/loud_memory.py
"""

from engram.policies.design import Design
from engram.settings import Settings
from engram.study import Arm, Study

AS_QUICKSTART = Settings(updates=400, slots=16)


def arm(rule: str, standardise: bool, read_scale: float) -> Arm:
    """The quickstart's muVLA but for what is said."""
    return Arm(Design(m=8, rule=rule, standardise=standardise, read_scale=read_scale), AS_QUICKSTART)


ARMS = {
    f"{rule}, {'standardised' if standardise else 'raw'}, read x{scale:g}": arm(rule, standardise, scale)
    for rule in ("gated", "plain")
    for standardise in (True, False)
    for scale in (4.0, 1.0)
}

STUDY = Study(
    name="loud_memory",
    tasks=("recall-color-3",),
    arms=ARMS,
    demos=500,
    episodes=100,
    notes="Insulated mask, frozen trunk, whole-episode gradients; paired tests are against the first arm.",
)
