"""More colours, longer waits: recall-color-5 and -9 with delays drawn up to 20 ticks, tested up to 500.

The same recipe as the quickstart, trained longer. Delays beyond 20 are never trained on: what holds there is what the
gated write holds.

    engram study recipes/recall_long.py
"""

from engram.policies.design import Design
from engram.settings import Settings
from engram.study import Arm, Study

STUDY = Study(
    name="recall_long",
    tasks=("recall-color-5",),
    arms={
        "memoryless": Arm(Design(m=0), Settings(updates=3000)),
        "muVLA gated": Arm(Design(m=4), Settings(updates=3000)),
        "muVLA plain": Arm(Design(m=4, rule="plain"), Settings(updates=3000)),
    },
    seeds=(0,),
    demos=500,
    episodes=200,
    knobs={"delay_ticks": (0, 20)},
    tests={"delay 0-20": {}} | {f"delay {ticks}": {"delay_ticks": ticks} for ticks in (50, 100, 500)},
    notes="insulated mask, frozen trunk, whole-episode gradients.",
)
