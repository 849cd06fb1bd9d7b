"""What the quickstart's budget gives without pretrained weights: all weights learn, at half the learning rate.

To be read beside recipes/quickstart_seeds.py.

    engram study recipes/from_scratch.py
"""

from engram.policies.design import Design
from engram.settings import Settings
from engram.study import Arm, Study

SCRATCH = Settings(updates=400, slots=16, start="scratch", lr=1e-3)

STUDY = Study(
    name="from_scratch",
    tasks=("recall-color-3",),
    arms={
        "muVLA from scratch": Arm(Design(m=8, trained="all"), SCRATCH),
        "memoryless from scratch": Arm(Design(m=0, trained="all"), SCRATCH),
    },
    seeds=(0,),
    demos=500,
    episodes=200,
    notes="Random weights, all of them trained; insulated mask, whole-episode gradients; one training seed.",
)
