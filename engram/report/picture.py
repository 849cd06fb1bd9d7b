"""The picture of the README: success and interventions above, one episode of each policy as a filmstrip below."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

from engram.report import plots, words
from engram.report.checked import Json
from engram.report.run import Run, read
from engram.report.theme import LIGHT, colour, label
from engram.report.video import filmstrip, read_frames

SHOTS = 7


def figure(run: Path, out_png: Path) -> Path:
    """Save the picture of a run, 1200 x 700 pixels; without videos the strips are left out. Returns `out_png`."""
    found = read(Path(run))
    if not found.policies:
        raise ValueError(f"{run}: expected an evaluated policy to draw, found none; run `engram eval` first")
    pair = _telling_pair(found.videos)
    with matplotlib.rc_context(LIGHT.rc() | {"figure.facecolor": LIGHT.paper, "savefig.facecolor": LIGHT.paper}):
        drawn = Figure(figsize=(12, 7 if pair else 4.2), dpi=100, layout="constrained")
        FigureCanvasAgg(drawn)
        drawn.suptitle(words.headline(found), x=0.012, ha="left", fontsize=17, fontweight="bold")
        areas = drawn.subfigures(2 if pair else 1, 1, squeeze=False)[:, 0]
        _charts(areas[0], found)
        if pair:
            _strips(areas[1], found, pair)
        drawn.savefig(out_png)
    return Path(out_png)


def _charts(area: SubFigure, run: Run) -> None:
    several = bool(run.summary.get("interventions"))
    ratios = {"width_ratios": [1, 1.15] if several else [1]}
    left, *right = area.subplots(1, 1 + several, squeeze=False, gridspec_kw=ratios)[0]
    plots.success(left, LIGHT, run)
    left.set_title(f"Success on {run.task}", loc="left", fontsize=11, pad=18)
    for ax in right:
        plots.interventions(ax, LIGHT, run)
        ax.set_title(f"{label(run.intervened)} when its memory is tampered with", loc="left", fontsize=11, pad=18)


def _telling_pair(videos: list[Json]) -> list[Json]:
    """Two videos of one seed, memoryless first; one where only memory succeeds if there is such a seed."""
    by_seed: dict[int, dict[str, Json]] = {}
    for video in videos:
        by_seed.setdefault(video["seed"], {})[video["policy"]] = video
    pairs = [[v["memoryless"], v["mu_vla"]] for v in by_seed.values() if {"memoryless", "mu_vla"} <= set(v)]
    telling = [pair for pair in pairs if not pair[0]["success"] and pair[1]["success"]]
    return (telling or pairs or [[]])[0]


def _strips(area: SubFigure, run: Run, pair: list[Json]) -> None:
    files = [video["path"] for video in pair]
    longest = max(len(frames) / float(rate) for frames, rate in map(read_frames, files))
    at = list(np.linspace(0, longest, SHOTS))
    onset = run.onset(pair[0]["seed"])
    axes = area.subplots(len(pair), SHOTS, squeeze=False, gridspec_kw={"wspace": 0.02, "hspace": 0.02})
    for row, video, file in zip(axes, pair, files, strict=True):
        shots, length = filmstrip(file, at)
        for ax, shot, second in zip(row, shots, at, strict=True):
            ax.imshow(shot, interpolation="nearest", alpha=1.0 if second <= length + 1e-6 else 0.45)
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
            if video is pair[0]:
                phase = "" if onset is None or second < onset else " · choice"
                ax.set_title(f"{second:.1f} s{phase}", fontsize=9, color=LIGHT.muted)
        mark = f"{'✓' if video['success'] else '✗'} {video.get('choice') or 'nothing'}"
        row[0].set_ylabel(f"{label(video['policy'])}\n{mark}", rotation=0, ha="right", va="center", fontsize=10,
                          color=colour(video["policy"], [v["policy"] for v in pair]))  # fmt: skip
