"""What the numbers say, in words. The headline follows from the numbers: it never claims more than they show."""

from collections import Counter
from typing import Any

from engram.report.plots import drift_bands, interval, intervention_rows, loss_curves
from engram.report.run import Json, Run
from engram.report.theme import label, percent

GUESSING, REMEMBERING = 0.10, 0.90  # at most chance + 0.10 is guessing; at least 0.90 is remembering


def headline(run: Run) -> str:
    """A few words: what the two policies do, judged by chance and by their intervals."""
    plain, memory = run.policies.get("memoryless"), run.policies.get("mu_vla")
    if plain is None or memory is None:
        return f"Results on {run.task}"
    guesses = run.chance is not None and plain["success"] <= run.chance + GUESSING
    solved = memory["success"] >= REMEMBERING
    if guesses and solved:
        return "One guesses, one remembers"
    if interval(memory)[0] > interval(plain)[1]:
        return "Memory helps" if solved else "Memory helps, the task is not solved yet"
    if interval(memory)[1] < interval(plain)[0]:
        return "Memory does harm here"
    return "No difference shown between memory and no memory"


def lead(run: Run) -> str:
    """The sentence under the headline, with the numbers."""
    names = sorted(run.policies, key=lambda name: -run.policies[name]["success"])
    said = [f"{_subject(name)} succeeds in {_rate(run.policies[name])}" for name in names]
    said += [f"an expert that never saw the cue in {_rate(run.summary['chance'])}"] if run.chance is not None else []
    cue = " When it is time to choose, the cue is out of sight." if "recall" in run.task else ""
    return f"On {run.task}, {_listed(said)} (in brackets: 95 % intervals).{cue}{_swap(run)}"


def paired(run: Run) -> str:
    """The paired test between two policies on the same seeds, or nothing where the run has none."""
    test: Json | None = run.summary.get("paired")
    if not test:
        return ""
    rest = [f"{key.replace('_', ' ')} {value}" for key, value in test.items() if key not in ("a", "b", "p_value")]
    p = test["p_value"]
    shown = f"p = {p:.2g}" if p >= 1e-12 else "p < 10⁻¹²"
    detail = f" ({', '.join(rest)})" if rest else ""
    return f"Paired test on the same seeds, {label(test['a'])} against {label(test['b'])}: {shown}{detail}."


def episode_rows(run: Run) -> list[dict[str, Any]]:
    """One table row per (task, policy, intervention): episodes, successes, errors and the totals of the counters."""
    rows = []
    for (task, policy, intervention), episodes in run.episodes.items():
        totals: Counter[str] = Counter(errors=sum(bool(e.get("error")) for e in episodes))
        for episode in episodes:
            totals.update(episode.get("counters") or {})
        rows.append({
            "task": task, "policy": label(policy), "intervention": intervention, "episodes": len(episodes),
            "successes": sum(bool(e["success"]) for e in episodes), **totals,
        })  # fmt: skip
    return rows


def success_alt(run: Run) -> str:
    """The success plot for those who hear the page."""
    bars = [f"{label(name)} {_rate(result)}" for name, result in run.policies.items()]
    bars += [f"{label(name)} with the cue in view {_rate(r)}" for name, r in (run.summary.get("visible") or {}).items()]
    return f"Bar chart of success with 95 % intervals: {'; '.join(bars)}. {chance(run)}"


def intervention_alt(run: Run) -> str:
    """The interventions plot for those who hear the page."""
    bars = [f"{title} {percent(result['success'])}" for title, result, _ in intervention_rows(run)]
    return f"Bar chart of success when memory is tampered with: {'; '.join(bars)}. {chance(run)}"


def delay_alt(run: Run) -> str:
    """The delay plot for those who hear the page."""
    points = [f"{label(p['policy'])} at {p['delay']} {percent(p['success'])}" for p in run.summary["delay_curve"]]
    return f"Line chart of success against delay in ticks: {'; '.join(points)}. {chance(run)}"


def learning_alt(run: Run) -> str:
    """The learning curves for those who hear the page."""
    ends = [f"{label(n)} from {y[0]:.3g} to {y[-1]:.3g} in {x[-1]:,.0f}" for n, (x, y) in loss_curves(run).items()]
    return f"Line chart of training loss against updates: {'; '.join(ends)}."


def drift_alt(run: Run) -> str:
    """The drift plot for those who hear the page."""
    bands = {name: (tick, quartiles[1]) for name, (tick, quartiles) in drift_bands(run).items()}
    peaks = [f"{label(n)} largest {y.max():.3g} at tick {x[y.argmax()]}" for n, (x, y) in bands.items()]
    return f"Line chart of the median change of memory per tick, from the start of the choice: {'; '.join(peaks)}."


def chance(run: Run) -> str:
    """Chance as measured, or nothing."""
    return "" if run.chance is None else f"Dashed line: chance, {percent(run.chance)}."


def _rate(result: Json) -> str:
    episodes = f" of {result['episodes']:,} episodes" if result.get("episodes") else ""
    low, high = interval(result)
    if low == high:
        return percent(result["success"]) + episodes
    return f"{percent(result['success'])}{episodes} ({100 * low:.0f}–{100 * high:.0f} %)"


def _swap(run: Run) -> str:
    swap = (run.summary.get("interventions") or {}).get("swap") or {}
    if swap.get("donor_choice") is None:
        return ""
    rate = percent(swap["donor_choice"])
    return f" Given the memory of another episode, μVLA chooses that episode's colour {rate} of the time."


def _subject(policy: str) -> str:
    return {"mu_vla": "μVLA", "memoryless": "the memoryless policy"}.get(policy, label(policy))


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
