"""The plots of a run. Each draws on the axes it is given, so that the page (SVG) and the picture (PNG) share them."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator

from engram.report.checked import Json
from engram.report.run import Run
from engram.report.theme import Theme, colour, label, percent
from engram.stats import wilson

INTERVENTIONS = {
    "none": "memory left alone",
    "freeze": "frozen",
    "zero": "zeroed",
    "noise": "replaced by noise",
    "reset": "reset to its start",
    "swap": "swapped with a donor's",
}


def success(ax: Axes, theme: Theme, run: Run) -> None:
    """Success of every policy, with the cue hidden and (where measured) in view, Wilson 95 % intervals, chance."""
    groups = [("cue hidden", run.policies)]
    if run.summary.get("visible"):
        groups.append(("cue in view", run.summary["visible"]))
    names, places, ticks = list(run.policies), [], []
    for start, (_, results) in enumerate(groups):
        shown = [name for name in names if name in results]
        for i, name in enumerate(shown):
            x = start * (len(names) + 0.7) + i
            _column(ax, theme, x, results[name], colour(name, names))
            places.append(x)
            ticks.append(label(name))
    ax.set_xticks(places, ticks)
    if len(groups) == 2:
        for start, (title, _) in enumerate(groups):
            middle = start * (len(names) + 0.7) + (len(names) - 1) / 2
            ax.annotate(title, (middle, 0), xycoords=ax.get_xaxis_transform(), xytext=(0, -20), va="top", ha="center",
                        textcoords="offset points", color=theme.muted, annotation_clip=False)  # fmt: skip
        ax.set_xlabel(" ")
    ax.set_xlim(-0.75, places[-1] + 0.75)
    ax.set_ylabel("success")
    ax.set_ylim(0, 1.1)
    _rate_axis(ax.yaxis)
    ax.grid(axis="y")
    _chance_level(ax, theme, run)


def interventions(ax: Axes, theme: Theme, run: Run) -> None:
    """What happens to the remembering policy when its memory is tampered with during evaluation."""
    rows, tint = intervention_rows(run), colour(run.intervened, [*run.policies, run.intervened])
    for y, (_, result, is_donor) in enumerate(rows):
        rate = result["success"]
        ax.barh(y, rate, 0.62, color=tint, alpha=0.45 if is_donor else 1.0, hatch="////" if is_donor else None,
                edgecolor=theme.paper if is_donor else "none", linewidth=0)  # fmt: skip
        low, high = interval(result)
        ax.plot([low, high], [y, y], color=theme.ink, linewidth=1.3, solid_capstyle="butt")
        ax.text(max(rate, high) + 0.02, y, percent(rate), va="center", color=theme.ink)
    ax.set_yticks(range(len(rows)), [title for title, _, _ in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(0, 1.16)
    _rate_axis(ax.xaxis)
    ax.grid(axis="x")
    if run.chance is not None:
        ax.axvline(run.chance, **_chance(theme))
        _mark(ax, theme, run.chance, "chance")


def intervention_rows(run: Run) -> list[tuple[str, Json, bool]]:
    """(title, result, whether the rate counts the donor's colour), untouched memory first, in a fixed order."""
    found: Json = run.summary.get("interventions") or {}
    order = list(INTERVENTIONS)
    untouched = run.policies.get(run.intervened)
    rows = [(INTERVENTIONS["none"], untouched, False)] if untouched else []
    for name in sorted(found, key=lambda key: (order + [key.partition("@")[0]]).index(key.partition("@")[0])):
        kind, _, tick = name.partition("@")
        rows.append(
            (INTERVENTIONS.get(kind, kind.replace("_", " ")) + (f" at tick {tick}" if tick else ""), found[name], False)
        )
        if found[name].get("donor_choice") is not None:
            donor = {"success": found[name]["donor_choice"], "episodes": found[name].get("episodes")}
            rows.append(("donor's colour chosen", donor, True))
    return rows


def delay(ax: Axes, theme: Theme, run: Run) -> None:
    """Success against the length of the delay, with bands of Wilson 95 % intervals."""
    points: list[Json] = run.summary["delay_curve"]
    names = list(dict.fromkeys(point["policy"] for point in points))
    delays = sorted({point["delay"] for point in points})
    for name in names:
        mine = sorted((p for p in points if p["policy"] == name), key=lambda p: p["delay"])
        x, y = [p["delay"] for p in mine], [p["success"] for p in mine]
        low, high = zip(*(interval(p) for p in mine), strict=True)
        ax.fill_between(x, low, high, color=colour(name, names), alpha=0.18, linewidth=0)
        ax.plot(x, y, "o-", color=colour(name, names), markersize=4, linewidth=1.6, label=label(name))
    if run.summary.get("trained_delay"):
        first, last = run.summary["trained_delay"]
        ax.axvspan(first, last, color=theme.grid, alpha=0.45, linewidth=0, zorder=0)
        ax.text((first + last) / 2, 1.06, "trained on", color=theme.muted, ha="center", va="center")
    if delays[-1] > 40:  # delays grow by factors: give each its room
        ax.set_xscale("symlog", linthresh=10)
    ax.xaxis.set_major_locator(FixedLocator(delays))
    ax.xaxis.set_major_formatter(FixedFormatter([str(d) for d in delays]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_ylabel("success")
    ax.set_xlabel("delay between cue and choice (ticks of 50 ms)")
    ax.set_ylim(0, 1.1)
    _rate_axis(ax.yaxis)
    ax.grid(axis="y")
    _chance_level(ax, theme, run)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(names))


def learning(ax: Axes, theme: Theme, run: Run) -> None:
    """Training loss against updates: faint as logged, bold smoothed in the logarithm."""
    curves = loss_curves(run)
    for name, (step, loss) in curves.items():
        every = max(1, len(step) // 300)
        tint = colour(name, list(curves))
        ax.plot(step[::every], loss[::every], color=tint, alpha=0.25, linewidth=0.7)
        ax.plot(step[::every], smooth_log(loss)[::every], color=tint, linewidth=1.8, label=label(name))
    ax.set_yscale("log")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("update")
    ax.set_ylabel("training loss")
    ax.grid(axis="y")
    ax.legend(loc="upper right")


def loss_curves(run: Run) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Policy -> (step, loss), the finite positive ones, for every policy that logged at least two."""
    curves = {}
    for name, lines in run.metrics.items():
        pairs = [(m["step"], m["loss"]) for m in lines if m.get("loss") and 0 < m["loss"] < math.inf]
        if len(pairs) >= 2:
            step, loss = np.array(pairs, dtype=np.float64).T
            curves[name] = (step, loss)
    return curves


def smooth_log(values: np.ndarray) -> np.ndarray:
    """Exponential mean of the logarithm over about a fiftieth of the series, corrected for its start; float (n,)."""
    keep = 1 - 1 / max(1.0, len(values) / 50)
    smoothed, total, weight = np.empty_like(values), 0.0, 0.0
    for i, value in enumerate(np.log(values)):
        total, weight = keep * total + value, keep * weight + 1
        smoothed[i] = total / weight
    return np.exp(smoothed)


def drift(ax: Axes, theme: Theme, run: Run) -> None:
    """How far memory turns at each tick: median and quartiles over episodes, aligned to the start of the choice."""
    bands = drift_bands(run)
    for name, (tick, quartiles) in bands.items():
        low, middle, high = quartiles
        ax.fill_between(tick, low, high, color=colour(name, list(bands)), alpha=0.2, linewidth=0)
        ax.plot(tick, middle, color=colour(name, list(bands)), linewidth=1.6, label=label(name))
    ax.set_ylim(bottom=0)
    ax.axvline(0, color=theme.muted, linewidth=1)
    _mark(ax, theme, 0, "choice begins")
    marked = [e for name in bands for e in _untouched(run, name) if e.get("cue_end") is not None and e["drift"]]
    ends = [e["cue_end"] - e["onset"] for e in marked]
    if ends:  # the delay varies between episodes, so the end of the cue is a range
        ax.axvspan(min(ends), max(ends) + 1e-6, color=theme.grid, alpha=0.5, linewidth=0.8, zorder=0)
        _mark(ax, theme, float(np.median(ends)), "cue ends")
    ax.set_xlabel("tick, counted from the start of the choice")
    ax.set_ylabel("change of memory (1 − cosine)")
    ax.grid(axis="y")
    if len(bands) > 1:
        ax.legend(loc="upper right")


def drift_bands(run: Run) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Policy -> (ticks from onset (n,), quartiles (3, n)), where at least a quarter of the episodes have a value."""
    bands = {}
    for name in run.policies:
        episodes = [e for e in _untouched(run, name) if e.get("drift") and e.get("onset") is not None]
        by_tick: dict[int, list[float]] = {}
        for episode in episodes:
            start = episode["ticks"] - len(episode["drift"])  # early ticks may have no value
            for tick, value in enumerate(episode["drift"], start - episode["onset"]):
                if math.isfinite(value):
                    by_tick.setdefault(tick, []).append(value)
        ticks = [t for t in sorted(by_tick) if len(by_tick[t]) >= max(1, len(episodes) / 4)]
        if ticks and max(max(by_tick[t]) for t in ticks) > 0:
            quartiles = np.array([np.percentile(by_tick[t], [25, 50, 75]) for t in ticks]).T
            bands[name] = (np.array(ticks), quartiles)
    return bands


def interval(result: Json) -> tuple[float, float]:
    """The 95 % interval of a result; computed from its episodes, or the point itself, where none was written."""
    rate, episodes = result["success"], result.get("episodes")
    if result.get("ci95"):
        low, high = result["ci95"]
        return float(low), float(high)
    return wilson(round(rate * episodes), episodes) if episodes else (float(rate), float(rate))


def _untouched(run: Run, policy: str) -> list[Json]:
    return run.episodes.get((run.task, policy, "none"), [])


def _column(ax: Axes, theme: Theme, x: float | int, result: Json, tint: str) -> None:
    low, high = interval(result)
    ax.bar(x, result["success"], 0.72, color=tint, linewidth=0)
    ax.plot([x, x], [low, high], color=theme.ink, linewidth=1.4, solid_capstyle="butt")
    ax.text(x, max(high, result["success"]) + 0.02, percent(result["success"]), ha="center", va="bottom",
            color=theme.ink, fontweight="bold")  # fmt: skip


def _rate_axis(axis: Axis) -> None:
    axis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:.0f} %"))


def _chance_level(ax: Axes, theme: Theme, run: Run) -> None:
    if run.chance is not None:
        ax.axhline(run.chance, **_chance(theme))
        ax.annotate("chance", (1, run.chance), xycoords=ax.get_yaxis_transform(), xytext=(4, 0), va="center",
                    textcoords="offset points", color=theme.muted, annotation_clip=False)  # fmt: skip


def _chance(theme: Theme) -> Json:
    return {"color": theme.ink, "linewidth": 1, "linestyle": (0, (4, 3)), "alpha": 0.75}


def _mark(ax: Axes, theme: Theme, x: float | int, text: str) -> None:
    ax.annotate(text, (x, 1), xycoords=ax.get_xaxis_transform(), xytext=(0, 4), textcoords="offset points",
                ha="center", va="bottom", color=theme.muted, annotation_clip=False)  # fmt: skip
