"""More colours, longer waits: one policy for recall-color-5 and -9, trained on delays up to 20 ticks, tested up to 100.

The quickstart's recipe on more demonstrations and more updates.
recall-color-3 is among the demonstrations, because with few colours the use of memory is found early (dev/LOG.md).
Delays beyond 20 are never trained on: what holds there is what the write holds.

    engram study recipes/recall_long.py
"""

from engram.policies.design import Design
from engram.settings import Settings
from engram.study import Arm, Study

LONGER = Settings(updates=1200, slots=16)
TRAINED = {"delay_ticks": (0, 20)}
DELAYS = (50, 100)

STUDY = Study(
    name="recall_long",
    tasks=("recall-color-5", "recall-color-9", "recall-color-3"),
    arms={
        "muVLA gated": Arm(Design(), LONGER),
        "memoryless": Arm(Design(m=0), LONGER),
    },
    seeds=(0,),
    demos=1000,
    episodes=200,
    knobs=TRAINED,
    tests={
        f"{colors} colours, delay {name}": {"colors": colors, **knobs}
        for colors in (5, 9)
        for name, knobs in {"0-20": TRAINED, **{str(ticks): {"delay_ticks": ticks} for ticks in DELAYS}}.items()
    },
    notes="One policy for all; insulated mask, frozen trunk, whole-episode gradients, one training seed.",
)
