"""What pages are made of: sections, figures, films and tables, as HTML that needs no other file."""

import base64
from html import escape
from pathlib import Path
from typing import Any

from engram.report.assets import CSS, JS
from engram.report.checked import Json
from engram.report.table import cell


def document(title: str, body: str) -> str:
    """A whole page."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n"
        f"<body><main>{body}</main><script>{JS}</script></body></html>\n"
    )


def section(title: str, content: str) -> str:
    """A part of the page under a heading."""
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def absent(title: str, why: str) -> str:
    """A section that says why it is empty."""
    return section(title, f'<p class="note">{escape(why)}</p>')


def plot(drawing: str, caption: str) -> str:
    """A drawing and what it shows."""
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def fitting(films: dict[str, list[Json]], budget: int) -> set[str]:
    """The keys of those that a page has room for, taken in order: `budget` bytes."""
    kept = set()
    for key, clips in films.items():
        size = sum(clip["path"].stat().st_size for clip in clips)
        if size <= budget:
            budget -= size
            kept.add(key)
    return kept


def left_out(names: list[str]) -> str:
    """One line that names them; nothing for none."""
    said = f"Left out to keep the page small: {', '.join(names)}."
    return f'<p class="note">{escape(said)}</p>' if names else ""


def video(file: Path, alt: str) -> str:
    """A film, in the page itself."""
    data = base64.b64encode(file.read_bytes()).decode()
    source = f"data:video/mp4;base64,{data}"
    return f'<video muted playsinline preload="auto" aria-label="{escape(alt)}" src="{source}"></video>'


def player() -> str:
    """The buttons that all films of a section obey."""
    return (
        '<div class="player"><button type="button">Play</button><button type="button">Restart</button>'
        '<input type="range" min="0" max="1000" value="0" aria-label="Position in all videos">'
        "<output>0.0 s</output></div>"
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a table; columns of numbers are set to the right."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    number = {key: all(isinstance(row.get(key, 0), int | float) for row in rows) for key in columns}
    kind = {key: ' class="n"' if number[key] else "" for key in columns}
    head = "".join(f'<th scope="col"{kind[key]}>{escape(key)}</th>' for key in columns)
    lines = [[f"<td{kind[key]}>{escape(shown(row.get(key)))}</td>" for key in columns] for row in rows]
    body = "".join(f"<tr>{''.join(line)}</tr>" for line in lines)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def flat(key: str, value: Any) -> list[tuple[str, str]]:
    """A provenance entry as table rows: notes one row each, other objects on one line."""
    if not isinstance(value, dict):
        return [(key, shown(value))]
    if key == "notes":
        return [(name, shown(note)) for name, note in value.items()]
    return [(key, " · ".join(f"{name} {shown(item)}" for name, item in value.items()))]


def shown(value: Any) -> str:
    """A value as a person reads it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(item)}" for name, item in value.items())
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and value < 1e6 else cell(value)
