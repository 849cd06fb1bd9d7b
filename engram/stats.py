"""Intervals and tests for success rates: the few that evaluation needs, in plain Python.

Every interval is two-sided; `confidence` is its coverage.
"""

import math
import random
from collections.abc import Sequence
from statistics import NormalDist, fmean

Number = bool | int | float


def wilson(successes: int, episodes: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a success rate, within [0, 1] and sensible at 0 and all successes; (0, 1) for no episodes.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927) 209-212.
    """
    _require_count(successes, episodes)
    if episodes == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = successes / episodes
    centre = rate + z * z / (2 * episodes)
    half = z * math.sqrt(rate * (1 - rate) / episodes + z * z / (4 * episodes**2))
    scale = 1 + z * z / episodes
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == episodes else (centre + half) / scale
    return low, high


def mcnemar(ours: Sequence[bool], theirs: Sequence[bool]) -> float:
    """Exact two-sided p-value that two policies, run on the same seeds, succeed equally often.

    Only the pairs that disagree tell: under the null each is won by either side with probability one half.
    Source: McNemar, Psychometrika 12 (1947) 153-157, in the exact binomial form.
    """
    if len(ours) != len(theirs):
        raise ValueError(
            f"a paired test expected outcomes of the same seeds, found {len(ours)} and {len(theirs)} episodes; "
            "evaluate both policies on the same seeds"
        )
    won = sum(bool(a) and not b for a, b in zip(ours, theirs, strict=True))
    lost = sum(bool(b) and not a for a, b in zip(ours, theirs, strict=True))
    pairs = won + lost
    tail = sum(math.comb(pairs, k) for k in range(min(won, lost) + 1)) / 2**pairs
    return min(1.0, 2 * tail)


def cluster_bootstrap(
    clusters: Sequence[Sequence[Number]], confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of outcomes that come in clusters (one cluster per training seed).

    Episodes of one trained policy share its luck, so clusters, not episodes, are drawn with replacement; the mean is
    over all episodes drawn. With a handful of clusters the interval is too narrow rather than too wide: name their
    number beside it. Deterministic for a seed.
    Source: Davison & Hinkley, "Bootstrap Methods and their Application" (1997) section 3.8.
    """
    sums = [(math.fsum(cluster), len(cluster)) for cluster in clusters]
    if not sums or min(size for _, size in sums) == 0:
        raise ValueError(f"expected at least one cluster and none empty, found sizes {[size for _, size in sums]}")
    rng = random.Random(seed)
    means = sorted(_pooled(rng.choices(sums, k=len(sums))) for _ in range(draws))
    tail = (1 - confidence) / 2
    return means[int(tail * (draws - 1))], means[math.ceil((1 - tail) * (draws - 1))]


def mean(values: Sequence[Number]) -> float | None:
    """Arithmetic mean, None for no values: a share of nothing is not zero."""
    return fmean(values) if values else None


def _pooled(sums: Sequence[tuple[float, int]]) -> float:
    return math.fsum(total for total, _ in sums) / sum(size for _, size in sums)


def _require_count(successes: int, episodes: int) -> None:
    if not 0 <= successes <= episodes:
        raise ValueError(f"expected 0 <= successes <= episodes, found {successes} of {episodes}")
