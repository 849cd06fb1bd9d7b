"""Which K for MIKASA-Robo: gradients of muVLA across 1, 2, 8 ticks or a whole episode, on RememberColor5 alone.

Equal demonstrations, updates and frames, a tenth of that recipe's updates (and so no averaged weights, which would be
those of the beginning); validation seeds, not the protocol's.

    make mikasa
    engram study recipes/mikasa_k_sweep.py
"""

from engram.data.seeds import VALIDATION
from engram.policies.design import Design
from engram.settings import Settings
from engram.study import Arm, Study

TASK = "mikasa/RememberColor5"
SETTINGS = Settings(updates=300, slots=8, lr=2e-3, emphasis=4.0)
KS = {"K=1": 1, "K=2": 2, "K=8": 8, "K=episode": None}

STUDY = Study(
    name="mikasa_k_sweep",
    tasks=(TASK,),
    tested=(TASK,),
    arms={name: Arm(Design(m=8, notes=True, tbptt=k), SETTINGS) for name, k in KS.items()},
    seeds=(0,),
    demos=250,
    episodes=50,
    first_seed=VALIDATION,
    chance_episodes=0,
    room_gb=4.0,
    notes="Chooses K for recipes/mikasa_mu_vla.py; validation seeds.",
)
