"""How figures look: sizes in inches for a 3.3 inch column, fonts of 7 pt and more, colours all eyes can tell apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

BLUE, VERMILLION, BLACK, GREY = "#0072B2", "#D55E00", "#000000", "#8C8C8C"
"""Of the palette of Okabe and Ito."""

STYLE: dict[RcKeyType, object] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,  # fonts that publishers accept
    "savefig.dpi": 200,
}
COLUMN, PAGE = 3.3, 6.9
"""Widths in inches: of a column, and of a page with two."""


def canvas(width: float, height: float) -> Figure:
    """An empty drawing, inches wide and high, that arranges what is put on it."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
