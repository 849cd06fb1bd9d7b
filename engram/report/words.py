"""What the numbers say, in words. The headline follows from the numbers: it never claims more than they show."""

from collections import Counter
from typing import Any

from engram.policies.published import DESIGN
from engram.report.checked import Json
from engram.report.plots import drift_bands, interval, intervention_rows, loss_curves
from engram.report.run import Run
from engram.report.theme import label, percent

REMEMBERS, LEARNS = ("m", "rule", "standardise", "read_scale", "mask"), ("trained", "loss", "chunk")
VARIED = ("m", "trained")  # the paper tries several m; what can be trained depends on the backbone
GUESSING, REMEMBERING = 0.10, 0.90  # at most chance + 0.10 is guessing; at least 0.90 is remembering


def headline(run: Run) -> str:
    """A few words: what the two policies do, judged by chance and by their intervals."""
    if not run.task:
        return f"{label(run.name)}: not evaluated yet"
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
    if not run.task:
        return "A policy was trained; the folder eval holds no episodes of it."
    if not run.policies:
        return f"On {run.task}, no episode with its memory left alone came to an end."
    names = sorted(run.policies, key=lambda name: -run.policies[name]["success"])
    said = [f"{_subject(name)} succeeds in {_rate(run.policies[name])}" for name in names]
    measured = run.summary.get("chance_measured") or {"success": run.chance}
    said += [f"an expert that never saw the cue in {_rate(measured)}"] if run.chance is not None else []
    hidden = "recall" in run.task and "visible" not in run.task
    cue = " When it is time to choose, the cue is out of sight." if hidden else ""
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


def condition(run: Run) -> str:
    """What the success of the policies was measured under, next to that with the cue in view where there is one."""
    return "cue hidden" if run.summary.get("visible") else run.task


def training_time(run: Run) -> str:
    """How long the training took; that of several is a sum, and may be longer than the making of the whole run."""
    spent = run.summary.get("train_seconds")
    if not isinstance(spent, int | float):
        return ""
    several = len(run.summary.get("training") or {}) > 1
    return f"{spent / 60:.1f} minutes of training{', several at a time' if several else ''}"


def designs(run: Run) -> list[tuple[str, str]]:
    """A line for the design of each policy, and one for the published design where a policy with a memory has another.

    Whoever reads a rate of μVLA must see whether it is the paper's.
    """
    found: dict[str, Json] = (run.summary.get("configuration") or {}).get("designs") or {}
    other = {name for name, chosen in found.items() if _departs(chosen)}
    rows = [
        (f"design of {label(name)}", design(chosen) + (" (not the paper's setting)" if name in other else ""))
        for name, chosen in found.items()
    ]
    published = f"plain write, full mask, l1: {design(DESIGN)}; it is what `engram train --preset paper` trains"
    return rows + ([("the paper's setting", published)] if other else [])


def design(chosen: Json) -> str:
    """What decides how a policy remembers and learns, by the names that `engram train` has for it."""
    read = {"recurrent": REMEMBERS if chosen.get("m") else ("m",), "last-frames": ("memory", "frames")}
    kept = [key for key in (*read.get(chosen.get("memory", "recurrent"), ("memory",)), *LEARNS) if key in chosen]
    kept += ["carried"] if chosen.get("carried") is False else []
    return ", ".join(
        f"{key} {chosen[key]:g}" if isinstance(chosen[key], float) else f"{key} {chosen[key]}" for key in kept
    )


def _departs(chosen: Json) -> bool:
    """Whether it has a memory of tokens that is not written, read or trained as published."""
    tokens = chosen.get("memory", "recurrent") == "recurrent" and chosen.get("m")
    return bool(tokens) and any(chosen.get(key) != DESIGN[key] for key in (*REMEMBERS, *LEARNS) if key not in VARIED)


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
    who = label(run.intervened)
    return f" Given the memory of another episode, {who} chooses that episode's colour {rate} of the time."


def _subject(policy: str) -> str:
    return {"mu_vla": "μVLA", "memoryless": "the memoryless policy"}.get(policy, label(policy))


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
