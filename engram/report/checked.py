"""JSON from disk, held against what is expected of it, so that whatever is wrong with a file is one sentence."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Kinds = dict[str, type | tuple[type, ...]]
NUMBER = (int, float)
NAMES = {
    str: "a string", int: "a whole number", NUMBER: "a number", bool: "true or false", dict: "an object",
    list: "a list", object: "there",
}  # fmt: skip


def parse(text: str, where: str) -> Json:
    """The JSON object in `text`; `where` names its place in the ValueError for anything else."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: expected JSON, found {text!r:.60} ({error}); delete it and run again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected a JSON object, found {text!r:.60}; delete it and run again")
    return value


def lines(file: Path, kinds: Kinds) -> Iterator[Json]:
    """The objects of a JSONL file. A last line without its newline is a write cut short by a kill: left out."""
    whole, _, _ = file.read_text(encoding="utf-8").rpartition("\n")
    for number, line in enumerate(whole.splitlines(), start=1):
        if line.strip():
            found = parse(line, f"{file}:{number}")
            require(f"{file}:{number}", found, kinds)
            yield found


def require(where: str, found: Any, kinds: Kinds) -> None:
    """ValueError unless `found` is an object that holds every key of `kinds`, each of its kind."""
    if not isinstance(found, dict):
        raise wrong(where, "a JSON object", found)
    for key, kind in kinds.items():
        if key not in found or not isinstance(found[key], kind):
            raise wrong(where, f'"{key}" to be {NAMES[kind]}', found.get(key))


def wrong(where: str, expected: str, found: Any) -> ValueError:
    """The error for a file that holds something else, to be raised."""
    return ValueError(f"{where}: expected {expected}, found {found!r:.120}; delete the file and make it again")
