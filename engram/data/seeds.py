"""Which seeds of an environment are for what. Disjoint by a million, so that nothing is tested on what it has seen.

The range of a use starts at its constant and ends before the next one's.
"""

DEMOS = 1_000_000  # demonstrations to train on
VALIDATION = 2_000_000  # to choose checkpoints and settings by
TEST = 3_000_000  # to report, once
PRETRAIN = 9_000_000  # single frames with privileged labels, for the backbone
