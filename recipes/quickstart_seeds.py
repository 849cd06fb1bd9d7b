"""The quickstart's claim over three training seeds: the same demonstrations, updates and frames for every row.

What differs between the seeds is the new weights and the order of the demonstrations.

    engram study recipes/quickstart_seeds.py
"""

from engram.policies.design import Design
from engram.settings import Settings
from engram.study import Arm, Study

AS_QUICKSTART = Settings(updates=400, slots=16)

STUDY = Study(
    name="quickstart_seeds",
    tasks=("recall-color-3",),
    arms={"muVLA": Arm(Design(m=8), AS_QUICKSTART), "memoryless": Arm(Design(m=0), AS_QUICKSTART)},
    demos=500,
    episodes=200,
    notes="Insulated mask, frozen trunk, whole-episode gradients; three training seeds.",
)
