"""Two policies on the same episodes: how often each succeeds where the other does not."""

from pathlib import Path

from engram.rollout.records import read, settings
from engram.stats import mcnemar


def compare(ours: Path, theirs: Path) -> dict:
    """A paired comparison of two evaluations (JSONL) over the seeds that both finished.

    Returns their `episodes`, the `difference` of success rates (ours minus theirs), the numbers of episodes that
    `ours_only` and `theirs_only` solved, and the two-sided exact `p` of McNemar's test. Raises ValueError when the
    files share no episode or hold episodes of different tasks or knobs.
    """
    a, b, (our_knobs, their_knobs) = _outcomes(ours), _outcomes(theirs), (settings(ours), settings(theirs))
    if our_knobs["knobs"] != their_knobs["knobs"]:
        raise ValueError(
            f"{ours} and {theirs}: expected the same knobs of the environment, found {our_knobs['knobs']} and "
            f"{their_knobs['knobs']}; evaluate both policies on the same environment"
        )
    seeds = sorted(a.keys() & b.keys())
    tasks = {line["task"] for line in (*a.values(), *b.values())}
    if not seeds or len(tasks) > 1:
        raise ValueError(
            f"{ours} and {theirs}: expected episodes of one task with seeds in common, found tasks {sorted(tasks)} and "
            f"{len(seeds)} common seeds; evaluate both policies on the same task and seeds"
        )
    won, lost = ([x[seed]["success"] and not y[seed]["success"] for seed in seeds] for x, y in ((a, b), (b, a)))
    return {
        "episodes": len(seeds),
        "difference": (sum(won) - sum(lost)) / len(seeds),
        "ours_only": sum(won),
        "theirs_only": sum(lost),
        "p": mcnemar([a[seed]["success"] for seed in seeds], [b[seed]["success"] for seed in seeds]),
    }


def _outcomes(path: Path) -> dict[int, dict]:
    return {line["seed"]: line for line in read(path) if line["error"] is None}
