"""The page of a suite: success task by task beside what a paper reports, group means, films, what is missing."""

from html import escape
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from engram.files import replace_text, run_name
from engram.provenance import short
from engram.report import parts
from engram.report.checked import Json
from engram.report.evaluations import evaluations
from engram.report.theme import MEMORY, Theme, percent, svg

VIDEO_BYTES = 3_200_000  # of mp4; with base64 the page stays under 5 MB


def write(out: Path, found: Json) -> Path:
    """Write out/report.html from the summary of a suite (engram/suite.py) and the films in out/eval; its path."""
    body = [_head(found), _chart(found), _groups(found), _films(out), _missing(found), _tasks(found), _made(found)]
    page = out / "report.html"
    replace_text(page, parts.document(f"suite {found['suite']}", "".join(body)))
    return page


def _head(found: Json) -> str:
    tiles = "".join(
        f'<div style="border-top-color:{MEMORY}"><b>{percent(round(row["success"], 3))}</b>'
        f"<span>{escape(row['group'])}: mean of {row['tasks']} of {row['of']} tasks</span></div>"
        for row in found["groups"]
    )
    played = f"{len(found['tasks'])} tasks played, {len(found['missing'])} missing, {found['episodes']} episodes each."
    return (
        f'<header><p class="eyebrow">Engram suite · {escape(found["suite"])}</p>'
        f"<h1>{escape(run_name(Path(found['checkpoint'])))} on {escape(found['suite'])}</h1>"
        f'<p class="lead">{played}</p><p class="note">{escape(found["protocol"])}.</p>'
        f'<div class="tiles">{tiles}</div></header>'
    )


def _chart(found: Json) -> str:
    if not found["tasks"]:
        return parts.absent("Success by task", "No task has been played yet.")
    alt = "; ".join(f"{row['task']} {percent(row['success'])}" for row in found["tasks"] if row["episodes"])
    drawing = svg(lambda ax, theme: _bars(ax, theme, found), 9, 0.9 + 0.27 * len(found["tasks"]), alt)
    caption = f"Bars: success; lines: Wilson 95 % intervals. Diamonds: what is known of {found['reference']}."
    return parts.section("Success by task", parts.plot(drawing, caption))


def _bars(ax: Axes, theme: Theme, found: Json) -> None:
    rows = found["tasks"]
    for y, row in enumerate(rows):
        if row["episodes"]:
            ax.barh(y, row["success"], 0.62, color=MEMORY, linewidth=0)
            ax.plot(row["ci95"], [y, y], color=theme.ink, linewidth=1.3, solid_capstyle="butt")
        if (rate := row[found["reference"]]) is not None:
            ax.plot(rate, y, "D", color="#d9791e", markersize=6, markeredgecolor=theme.paper)
    ax.set_yticks(range(len(rows)), [row["task"].rpartition("/")[2] for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(0, 1.03)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.0%}"))
    ax.grid(axis="x")


def _groups(found: Json) -> str:
    rows = [{key: _listed(value) for key, value in row.items()} for row in found["groups"]]
    return parts.section("Groups", parts.table(rows)) if rows else ""


def _listed(value: Any) -> Any:
    """Names of tasks as text; anything else as it is."""
    return ", ".join(value) or None if isinstance(value, list) and all(isinstance(x, str) for x in value) else value


def _films(out: Path) -> str:
    films = {
        f"{each.settings['task']}, seed {episode['seed']}": [{"path": path, "success": episode["success"]}]
        for each in evaluations(out / "eval")
        for episode in each.episodes
        if (path := each.films / f"{episode['seed']}.mp4").is_file()
    }
    if not films:
        return parts.absent("Films", "No episode was filmed; ask for some with --videos.")
    kept = parts.fitting(films, VIDEO_BYTES)
    clips = "".join(
        f'<figure class="clip">{parts.video(clip["path"], name)}<figcaption>{escape(name)} '
        f'<span class="{"good" if clip["success"] else "bad"}">{"✓" if clip["success"] else "✗"}</span>'
        "</figcaption></figure>"
        for name, (clip,) in films.items()
        if name in kept
    )
    trailer = parts.left_out([name for name in films if name not in kept])
    return parts.section("Films", f'{parts.player()}<div class="clips">{clips}</div>{trailer}')


def _missing(found: Json) -> str:
    said = "".join(f"<li>{escape(text)}</li>" for text in found["missing"].values())
    return parts.section("Missing: played by nobody, counted as nothing", f"<ul>{said}</ul>") if said else ""


def _tasks(found: Json) -> str:
    rows = [{key: value for key, value in row.items() if key != "train_seed"} for row in found["tasks"]]
    return parts.section("Tasks", parts.table(rows)) if rows else ""


def _made(found: Json) -> str:
    told = {
        "commit": short(found["commit"]),
        **{key: found[key] for key in ("machine", "versions", "knobs", "counters")},
    }
    rows = [{"what": name, "value": text} for key, value in told.items() for name, text in parts.flat(key, value)]
    minutes = f"{found['wall_seconds'] / 60:.1f} minutes of play over all sittings."
    return parts.section("Provenance", f'<p class="note">{minutes}</p>{parts.table(rows)}')
