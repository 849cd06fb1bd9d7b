"""The quickstart's claim over three training seeds, and what it takes without pretrained weights.

The same demonstrations, updates and frames for every row; from scratch all weights learn, at half the learning rate.

    engram study recipes/quickstart_seeds.py
"""

from engram.policies.design import Design
from engram.settings import Settings
from engram.study import Arm, Study

AS_QUICKSTART = Settings(updates=600, slots=16)
SCRATCH = Settings(updates=600, slots=16, start="scratch", lr=1e-3)

STUDY = Study(
    name="quickstart_seeds",
    tasks=("recall-color-3",),
    arms={
        "muVLA": Arm(Design(m=4), AS_QUICKSTART),
        "memoryless": Arm(Design(m=0), AS_QUICKSTART),
        "muVLA from scratch": Arm(Design(m=4, trained="all"), SCRATCH),
        "memoryless from scratch": Arm(Design(m=0, trained="all"), SCRATCH),
    },
    demos=250,
    episodes=200,
    notes="Insulated mask, whole-episode gradients. From scratch: random weights, all of them trained.",
)
