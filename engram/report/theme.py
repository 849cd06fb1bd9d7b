"""How every plot looks: colours that colour-blind readers tell apart, and SVG that follows the page's dark or light.

An SVG is drawn with placeholder colours and they are then replaced by CSS: the same file reads well in either scheme.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Theme:
    """Colours of everything that is not data."""

    ink: str
    muted: str
    grid: str
    paper: str

    def rc(self) -> Any:
        """Matplotlib settings under which a figure takes this theme."""
        return {
            "text.color": self.ink, "axes.labelcolor": self.muted, "axes.edgecolor": self.grid,
            "axes.titlecolor": self.ink, "xtick.color": self.muted, "ytick.color": self.muted, "grid.color": self.grid,
            "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
            "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "grid.linewidth": 0.6,
            "xtick.major.size": 0, "ytick.major.size": 0, "xtick.minor.size": 0, "ytick.minor.size": 0,
            "font.size": 9, "axes.labelsize": 9, "xtick.labelsize": 9, "ytick.labelsize": 9,
            "legend.frameon": False, "legend.fontsize": 9, "svg.fonttype": "none",
        }  # fmt: skip


LIGHT = Theme(ink="#1c1f24", muted="#5f6873", grid="#d9dde2", paper="#ffffff")
_CSS = Theme(ink="#010203", muted="#040506", grid="#070809", paper="#0a0b0c")
_VARIABLES = {_CSS.ink: "var(--ink)", _CSS.muted: "var(--muted)", _CSS.grid: "var(--grid)", _CSS.paper: "var(--paper)"}

# Okabe and Ito (2008), "Color Universal Design"; two are shifted to keep 3:1 contrast on white and on near-black.
MEMORY = "#2b7fc4"
_COLOURS = {"mu_vla": MEMORY, "memoryless": "#d9791e", "first_frame": "#149c78", "last_frames": "#b8649a"}
_OTHERS = ("#8b7fd6", "#a58b1f", "#4fa3b8", "#c05a5a")
_NAMES = {"mu_vla": "μVLA", "memoryless": "memoryless", "first_frame": "first frame", "last_frames": "last frames"}


def colour(policy: str, among: list[str]) -> str:
    """The colour of a policy; one without its own takes the next free one by its place in `among`."""
    unnamed = [name for name in among if name not in _COLOURS]
    return _COLOURS[policy] if policy in _COLOURS else _OTHERS[unnamed.index(policy) % len(_OTHERS)]


def label(policy: str) -> str:
    """The name of a policy as prose writes it."""
    return _NAMES.get(policy, policy.replace("_", " "))


def percent(rate: float | int) -> str:
    """0.965 -> '96.5 %', 0.97 -> '97 %'."""
    return f"{100 * rate:.1f}".removesuffix(".0") + " %"


def svg(draw: Callable[[Axes, Theme], None], width: float | int, height: float | int, alt: str) -> str:
    """One plot as inline SVG of `width` x `height` inches, without identifiers that could clash on a page."""
    with matplotlib.rc_context(_CSS.rc() | {"svg.hashsalt": alt}):
        drawn = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(drawn)
        draw(drawn.add_subplot(), _CSS)
        buffer = io.StringIO()
        drawn.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    for placeholder, variable in _VARIABLES.items():
        text = text.replace(placeholder, variable)
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    return re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", rf'<svg \1 role="img" aria-label="{escape(alt)}">', text)
