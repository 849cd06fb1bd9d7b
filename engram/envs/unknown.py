"""One sentence for a name that is not known: the known ones and the nearest."""

import difflib
from collections.abc import Iterable


def unknown(what: str, found: str, known: Iterable[str]) -> str:
    """What was expected and found, and which name was probably meant."""
    names = list(known)
    near = difflib.get_close_matches(found, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}"
    return f"unknown {what}: expected one of {', '.join(names)}, found {found}; {hint}"
