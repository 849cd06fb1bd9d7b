"""Intervals and tests for success rates: the few that evaluation needs.

Every interval is two-sided; `confidence` is its coverage.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean

import numpy as np

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


def crossed_bootstrap(
    outcomes_SE: Sequence[Sequence[bool]], confidence: float = 0.95, draws: int = 4000, seed: int = 0
) -> tuple[float, float]:
    """Interval of the mean success of S training seeds, each tested on the same E episodes, in the same order.

    Episodes of one policy share its luck, and policies share the luck of the episodes: both are drawn with
    replacement. A handful of training seeds makes such an interval too narrow, so it is widened where need be to that
    of S * E independent episodes (`wilson`). Deterministic for a seed. ValueError unless every row has E >= 1.
    Source: Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1 (2007) 386-411.
    """
    sizes = {len(row) for row in outcomes_SE}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"expected training seeds tested on the same episodes, found {sorted(sizes)} episodes each")
    table_SE = np.array(outcomes_SE, np.int64)
    rng, (seeds, episodes) = np.random.default_rng(seed), table_SE.shape
    drawn_DS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), draws)
    drawn_DE = rng.multinomial(episodes, np.full(episodes, 1 / episodes), draws)
    means_D = ((drawn_DS @ table_SE) * drawn_DE).sum(1) / table_SE.size
    tail = (1 - confidence) / 2
    low, high = np.quantile(means_D, [tail, 1 - tail]).tolist()
    least, most = wilson(int(table_SE.sum()), table_SE.size, confidence)
    return min(low, least), max(high, most)


def mean(values: Sequence[Number]) -> float | None:
    """Arithmetic mean, None for no values: a share of nothing is not zero."""
    return fmean(values) if values else None


def _require_count(successes: int, episodes: int) -> None:
    if not 0 <= successes <= episodes:
        raise ValueError(f"expected 0 <= successes <= episodes, found {successes} of {episodes}")
