"""Does MemoryVLA's bank remember an order that was shown, and what of it matters? Three buttons, pressed alike.

The cube on the stand shows three colours one after another; after a delay the three buttons have to be pressed in this
order, and a pressed one looks as before. A policy without memory can do no better than guess (chance: the expert that
guesses an order). Bank and memoryless policy with three training seeds, the ablations with one; muVLA beside them on
the same backbone, demonstrations and updates.

    engram study recipes/memory_vla_order.py
"""

from dataclasses import replace

from engram.policies.design import BankDesign, Design
from engram.settings import Settings
from engram.study import Arm, Study

SETTINGS = Settings(updates=800, slots=8, emphasis=4.0, average=0.99)
BANK = BankDesign()


def bank(**choices) -> Design:
    """MemoryVLA with some choices of its bank changed."""
    return Design(memory="bank", bank=replace(BANK, **choices))


PAPER = {"time": "index", "merge": "plain", "write": "fused", "aligned": False, "form": "paper", "blocks": 2}
ONE = {
    "perceptual alone": bank(streams="perceptual"),
    "cognitive alone": bank(streams="cognitive"),
    "L=4": bank(capacity=4),
    "L=64": bank(capacity=64),
    "add": bank(fusion="add"),
    "plain merging": bank(merge="plain"),
    "fifo": bank(merge="fifo"),
    "number of the write": bank(time="index"),
    "no time": bank(time="none"),
    "the paper's bank": bank(**PAPER),
    "muVLA": Design(m=8),
}

STUDY = Study(
    name="memory_vla_order",
    tasks=("order-3",),
    arms={
        "bank": Arm(bank(), SETTINGS),
        "memoryless": Arm(bank(capacity=0), SETTINGS),
        **{name: Arm(design, SETTINGS, seeds=(0,)) for name, design in ONE.items()},
        # As published: 16 ticks of an episode drawn at random in training, every tick in deployment.
        "other strides": Arm(bank(), replace(SETTINGS, loader="group", ticks=16), seeds=(0,)),
    },
    demos=500,
    episodes=100,
)
