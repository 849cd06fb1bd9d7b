"""The score card: one file per row in benchmarks/, two implementations side by side in one process.

A row is a module `benchmarks/pN.py` with `TITLE` (one line), `BAR` (a `Bar`), `AGAINST` (other baselines by name) and
`measure() -> dict`, or `measure(against=NAME)` for those, whose result is the JSON line of the row. It asserts equality
of what it compares before it times. `engram bench` without a row lists them.
"""

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from math import comb
from pathlib import Path
from types import ModuleType
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

ROOT = Path(__file__).parents[1]
THREADS = 2


@dataclass(frozen=True)
class Bar:
    """What a row is judged by: `better` is "more" (a speed-up of at least `value`) or "less" (a cost of at most it).

    The median decides, or with `interval` the end of its 95 % interval that lies nearest to the bar's good side.
    """

    better: Literal["more", "less"]
    value: float
    interval: bool = False

    def met(self, found: "Ratio") -> bool:
        """Whether the bar is reached."""
        low, high = found.ci95 if self.interval else (found.median, found.median)
        return high >= self.value if self.better == "more" else low <= self.value


@dataclass(frozen=True)
class Ratio:
    """Times of `a` over those of `b`, one ratio a round; `ci95` is the distribution-free interval of the median."""

    median: float
    min: float
    max: float
    ci95: tuple[float, float]
    rounds: int
    ms_a: float
    ms_b: float

    def json(self) -> dict:
        """The fields that every row's JSON line begins with."""
        numbers = {"ratio": self.median, "min": self.min, "max": self.max, "ms_a": self.ms_a, "ms_b": self.ms_b}
        rounded = {key: round(value, 4) for key, value in numbers.items()}
        return {**rounded, "ci95": [round(x, 4) for x in self.ci95], "rounds": self.rounds}


def alternate(a: Callable[[], object], b: Callable[[], object], seconds: float, rounds: int = 7) -> Ratio:
    """Time A B, B A, A B ... for about `seconds`, at least `rounds` rounds, after two rounds of warming up.

    Other work on the machine slows neighbours in time alike, and leaves the ratio of one round alone.
    """
    times: list[tuple[float, float]] = []
    with _quiet():
        for _ in range(2):
            a(), b()
        end = time.perf_counter() + seconds
        while len(times) < rounds or time.perf_counter() < end:
            if len(times) % 2:
                second, first = _seconds(b), _seconds(a)
            else:
                first, second = _seconds(a), _seconds(b)
            times.append((first, second))
    return summary(times)


def summary(times: list[tuple[float, float]]) -> Ratio:
    """Per-round ratios of (seconds of a, seconds of b): median, extremes and interval."""
    each = sorted(a / b for a, b in times)
    low = _rank(len(each))
    ms_a, ms_b = (1000 * statistics.median(side) for side in zip(*times, strict=True))
    return Ratio(statistics.median(each), each[0], each[-1], (each[low], each[-1 - low]), len(each), ms_a, ms_b)


def _rank(n: int) -> int:
    """How many of `n` sorted values lie outside the 95 % interval of their median on either side (at least 0)."""
    below, k = 0.0, 0
    while (below := below + comb(n, k) / 2**n) <= 0.025:
        k += 1
    return max(0, k - 1)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@contextmanager
def _quiet() -> Iterator[None]:
    """Two threads, no garbage collection; both as before at the end."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        torch.set_num_threads(threads)


def assert_equal(name: str, ours: Tensor, reference: Tensor, tolerance: float = 1e-5) -> None:
    """AssertionError unless max |ours - reference| <= tolerance * max |reference| (absolute where that is 0)."""
    scale = reference.abs().max().item() or 1.0
    error = (ours - reference).abs().max().item() / scale
    assert error <= tolerance, f"{name}: differs from the reference by {error:.1e} relative, more than {tolerance:.0e}"


def rows(folder: Path = ROOT / "benchmarks") -> list[str]:
    """Names of the rows there are, in order: "P4", "P7", ..."""
    found = [path.stem.upper() for path in folder.glob("p*.py") if path.stem[1:].isdigit()]
    return sorted(found, key=lambda row: int(row[1:]))


def load(row: str) -> ModuleType:
    """The module of a row. ValueError names the rows there are."""
    known = rows()
    if row.upper() not in known:
        there = f"one of {', '.join(known)}" if known else "a clone of the repository, where benchmarks/ is"
        raise ValueError(f"benchmark row: expected {there}, found {row!r}; choose a row, or --all")
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return import_module(f"benchmarks.{row.lower()}")


def show() -> None:
    """Print what each row measures and the bar it is judged by; nothing is timed."""
    table = Table("row", "what", "bar", box=None)
    for row in rows():
        module = load(row)
        table.add_row(row, module.TITLE, _bar(module.BAR.better, module.BAR.value))
    Console().print(table)


def run(row: str, as_json: bool = False, against: str | None = None) -> None:
    """Measure a row and print it; with `as_json` the last line of standard output is its JSON.

    `against` names another baseline where the row offers one, else ValueError.
    """
    module = load(row)
    _require_baseline(row, module.AGAINST, against)
    result = {"row": row.upper(), **module.measure(**({} if against is None else {"against": against}))}
    Console(stderr=as_json).print(_table([result]))
    if as_json:
        print(json.dumps(result), flush=True)


def _require_baseline(row: str, known: tuple[str, ...], against: str | None) -> None:
    if against is not None and against not in known:
        expected = f"expected {' or '.join(known)} or nothing" if known else f"expected nothing for {row}"
        raise ValueError(f"--against: {expected}, found {against!r}; see `engram bench --help`")


def run_all(as_json: bool = False) -> int:
    """The score card: every row there is, one JSON line each with `as_json`. Exit status 1 if a bar is missed."""
    console, results = Console(stderr=True), []
    for row in rows():
        console.print(f"{row}: {load(row).TITLE} ...")
        results.append({"row": row, **load(row).measure()})
    Console(stderr=as_json).print(_table(results))
    if as_json:
        for result in results:
            print(json.dumps(result), flush=True)
    return 0 if all(result["met"] for result in results) else 1


def result(title: str, bar: Bar, found: Ratio, **more: object) -> dict:
    """A row's JSON: the deciding ratio with its bar, the device, and whatever else the row wants to say.

    `load` is the machine's load average: threads that wait for a core make every round uneven.
    """
    head = {**found.json(), "better": bar.better, "bar": bar.value, "met": bar.met(found), "what": title}
    return {**head, "device": f"cpu, {THREADS} threads", "load": os.getloadavg()[0], "torch": torch.__version__, **more}


def _table(results: list[dict]) -> Table:
    table = Table("row", "what", "ratio", "min .. max", "95 % of median", "rounds", "bar", "met", box=None)
    for r in results:
        spread, interval = f"{r['min']:.2f} .. {r['max']:.2f}", "{:.3f} .. {:.3f}".format(*r["ci95"])
        bar, met = _bar(r["better"], r["bar"]), "yes" if r["met"] else "NO"
        table.add_row(r["row"], r["what"], f"{r['ratio']:.3f}", spread, interval, str(r["rounds"]), bar, met)
    return table


def _bar(better: str, value: float) -> str:
    return f"{'>=' if better == 'more' else '<='} {value}"
