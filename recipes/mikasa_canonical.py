"""The tasks on which the MemoryVLA papers report, as MIKASA-Robo-VLA has them: one policy for those that can be played.

RememberColor3, 5 and 9 and InterceptMedium together (and ShellGameTouch where its mug is). The papers' own figures
(41.2 and 44.4 % over five) are of the older `-v0` tasks with longer episodes: nothing here compares with them.

    make mikasa
    engram study recipes/mikasa_canonical.py
"""

from engram.envs.mikasa import CANONICAL, FIRST_SEED, simulated, there
from engram.policies.design import Design
from engram.settings import Settings
from engram.study import Arm, Study

TASKS = tuple(f"mikasa/{name}" for name in CANONICAL if there(name))
SETTINGS = Settings(updates=3000, slots=8, lr=2e-3, warmup=500, average=0.999, emphasis=4.0)

STUDY = Study(
    name="mikasa_canonical",
    tasks=TASKS,
    tested=TASKS,
    arms={"muVLA": Arm(Design(m=8, notes=True), SETTINGS), "memoryless": Arm(Design(m=0), SETTINGS)},
    seeds=(0,),
    demos=250,
    episodes=100,
    first_seed=FIRST_SEED,
    demo_seeds=(0,) * len(TASKS),
    chance_episodes=0,
    room_gb=9.0,
    notes=f"Episodes {simulated()}; demonstrations of our own experts, the wrist camera's housing not drawn.",
)
