"""Is it K, or is it the optimizer? muVLA's sweep over K on equal budgets, and again with the published coupling.

The paper reports K = 2 far above K = 1 and K = 8. Its recipe takes one optimizer step per window of K ticks, so K also
sets the frames per update and, at a fixed number of updates, the frames of the whole training (its finetune.py).

matched  K alone changes: windows of 16 ticks, one optimizer step each, gradients cut every K ticks; same frames
         (K=episode: a window is one whole episode, of about 12 ticks, so a quarter fewer)
coupled  as published: windows of K ticks, one step each; the same number of updates, so frames grow with K

Cue and delay are short, so that an episode is about 12 ticks and a window of 8 may hold all that matters. The write is
the paper's plain one, but hidden states are centred and scaled before it and read 4 times as large as kept (decision
0007): as they are, little of the cue outlives a few ticks in this backbone ("K=8 raw").

    engram study recipes/k_sweep.py
"""

from dataclasses import replace

from engram.policies.design import Design
from engram.settings import Settings
from engram.study import Arm, Study

PLAIN = Design(mask="full", rule="plain", m=8)
MATCHED = Settings(updates=300, slots=16, ticks=16)


def matched(**design) -> Arm:
    """Equal frames, equal updates: only what `design` says differs."""
    return Arm(replace(PLAIN, **design), MATCHED)


def coupled(k: int) -> Arm:
    """One optimizer step per K ticks, as published; updates such that K = 8 sees the frames of the matched arms."""
    updates = MATCHED.updates * MATCHED.ticks // 8
    return Arm(replace(PLAIN, tbptt=k), replace(MATCHED, ticks=k, updates=updates))


ARMS = {
    "K=1 matched": matched(tbptt=1),
    "K=2 matched": matched(tbptt=2),
    "K=8 matched": matched(tbptt=8),
    "K=1 coupled": coupled(1),
    "K=2 coupled": coupled(2),
    "K=8 coupled": coupled(8),
    "K=episode": Arm(PLAIN, replace(MATCHED, ticks="episode")),
    "m=1 K=8": matched(tbptt=8, m=1),
    "m=64 K=8": matched(tbptt=8, m=64),
    "K=8 raw": matched(tbptt=8, standardise=False, read_scale=1.0),
    "ema 0.1": matched(tbptt=1, rule=0.1),
    "memoryless": matched(m=0),
    "first frame": matched(memory="first-frame"),
    "last 4 frames": matched(memory="last-frames", frames=4),
}

STUDY = Study(
    name="k_sweep",
    tasks=("recall-color-5",),
    arms=ARMS,
    demos=500,
    episodes=100,
    knobs={"cue_ticks": (1, 2), "delay_ticks": (0, 2)},
    notes="tiny backbone (size s), vision tower and context stream as pretrained, mask full, plain write of "
    "standardised hidden states, m=8 read 4 times as large as kept (raw: neither standardised nor enlarged). What the "
    "table says, it says of this model: the paper's is four thousand times larger.",
)
