"""Result tables that live in git: `results/NAME.json` for tools, `results/NAME.md` for people, generated from it."""

import json
from pathlib import Path
from typing import Any

from engram import provenance
from engram.files import replace_text

Row = dict[str, Any]


def write_result(
    path: Path,
    name: str,
    recipe: str,
    rows: list[Row],
    seconds: float | int,
    counters: dict[str, int],
    configuration: dict[str, Any],
    notes: str = "",
) -> Path:
    """Write `path` (.json) and the Markdown table beside it; adds commit, versions and machine. Returns `path`.

    rows           at least {"policy", "task", "train_seed", "episodes", "successes", "success", "ci95"} each
    seconds        wall time of the whole experiment
    counters       totals over all episodes (observations, writes, plans, renders, errors)
    configuration  everything that was asked for, seeds included; in the JSON alone
    """
    if path.suffix != ".json":
        raise ValueError(f"{path}: expected a result file that ends in .json; the Markdown is written beside it")
    if not rows:
        raise ValueError(f"{path}: expected at least one row, found none; a result without numbers is not written")
    result = {
        "name": name,
        "recipe": recipe,
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "seconds": round(seconds, 1),
        "rows": rows,
        "counters": counters,
        "configuration": configuration,
        "notes": notes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(result, indent=2) + "\n")
    replace_text(path.with_suffix(".md"), markdown(result))
    return path


def markdown(result: dict[str, Any]) -> str:
    """The table of a result as GitHub shows it, with where it comes from above and the notes below."""
    columns = list(dict.fromkeys(key for row in result["rows"] for key in row))
    lines = [
        f"# {result['name']}",
        "",
        f"Made by `{result['recipe']}` at commit `{provenance.short(result['commit'])}` in "
        f"{result['seconds'] / 60:.1f} minutes on {result['machine']['cores']} cores. "
        "Generated from the JSON beside it: do not edit.",
        "",
        _line(columns),
        _line(["---:" if _is_number(result["rows"], key) else "---" for key in columns]),
        *(_line([cell(row.get(key)) for key in columns]) for row in result["rows"]),
        "",
        "Counters: " + ", ".join(f"{key} {value:,}" for key, value in result["counters"].items()) + ".",
    ]
    return "\n".join(lines + (["", result["notes"]] if result["notes"] else [])) + "\n"


def cell(value: Any) -> str:
    """A value as a table shows it: three decimals, intervals in brackets, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(cell(item) for item in value) + "]"
    return str(value).replace("|", "\\|")


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _is_number(rows: list[Row], key: str) -> bool:
    return all(isinstance(row.get(key), int | float | None) for row in rows)
