"""How figures look: sizes in inches for a 3.3 inch column, fonts of 7 pt and more, colours all eyes can tell apart."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, VERMILLION, BLACK = "#0072B2", "#D55E00", "#000000"
"""Of the palette of Okabe and Ito."""

STYLE: dict[str, Any] = {
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
PANEL = (3.3, 2.5)
"""Width and height of a panel."""
SYMBOLS = {"lambda1": "$\\lambda_1$", "lambda2": "$\\lambda_2$"}


@dataclass(frozen=True)
class Panel:
    """mIoU against one loss weight, the other one `fixed`.

    Attributes:
        runs: value of the weight, ascending -> seed -> its run's row of the frame, finished or diverged.
    """

    axis: str
    other: str
    fixed: float
    runs: dict[float, dict[int, dict[str, Any]]]


@dataclass(frozen=True)
class Curves:
    """What one figure shows: runs of one pair that differ in the two weights and the seed alone.

    Attributes:
        seeds: those that every setting shown was trained with: means and bands are over these.
        students: mIoU in percent of the student alone per seed of `seeds`; empty if one of them has no result.
    """

    name: str
    panels: tuple[Panel, ...]
    seeds: tuple[int, ...]
    students: dict[int, float]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All runs shown, each once."""
        shown = [row for panel in self.panels for runs in panel.runs.values() for row in runs.values()]
        return list({row["id"]: row for row in shown}.values())

    def mious(self, runs: dict[int, dict[str, Any]]) -> list[float]:
        """mIoU per seed of `seeds`; empty if one diverged, or if there is no common seed."""
        found = [runs[seed] for seed in self.seeds]
        return [] if any(row["reason"] for row in found) else [row["miou_last"] for row in found]


def draw(curves: Curves, gain: float) -> dict[str, bytes]:
    """The figure of a curves as PDF and PNG; `gain` (points) is where the paper's line is above the student's.

    Equal found make equal bytes: no dates, and no names of machines.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        width = PANEL[0] * len(curves.panels)
        figure = Figure(figsize=(width, PANEL[1]), layout="constrained")
        axes = figure.subplots(1, len(curves.panels), sharey=True, squeeze=False)[0]
        for ax, panel in zip(axes, curves.panels, strict=True):
            _panel(ax, panel, curves, gain)
        axes[0].set_ylabel("mIoU (%)")
        row = curves.rows[0]
        seeds = f"{len(curves.seeds)} seed{'s' * (len(curves.seeds) != 1)}"
        place = f"{row['dataset']}, protocol {row['protocol']}, {seeds}; our reconstruction"
        parts = (f"{row['teacher']} → {row['student']}", place)
        figure.suptitle((" · " if len(axes) > 1 else "\n").join(parts), fontsize=8)
        entries = dict(entry[::-1] for ax in axes for entry in zip(*ax.get_legend_handles_labels(), strict=True))
        figure.legend(
            entries.values(), entries.keys(), loc="outside lower center", ncols=3 if len(axes) > 1 else 2,
            frameon=False, columnspacing=1.2, handletextpad=0.6, borderaxespad=0.2,
        )  # fmt: skip
        files = {}
        for kind, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
            stream = io.BytesIO()
            figure.savefig(stream, format=kind, metadata=metadata)
            files[kind] = stream.getvalue()
    return files


def _panel(ax: Axes, panel: Panel, curves: Curves, gain: float) -> None:
    n = len(curves.seeds)
    _student(ax, list(curves.students.values()), gain)
    values = list(panel.runs)
    mious = [curves.mious(runs) or [math.nan] for runs in panel.runs.values()]
    means = [math.fsum(found) / len(found) for found in mious]
    if n > 1:
        lows, highs = [min(found) for found in mious], [max(found) for found in mious]
        ax.fill_between(values, lows, highs, color=BLUE, alpha=0.18, linewidth=0)
    finished = [
        (value, row["miou_last"]) for value, runs in panel.runs.items() for row in runs.values() if not row["reason"]
    ]
    ax.plot(
        *zip(*finished, strict=True), linestyle="none", marker="o", markersize=3, markerfacecolor="white",
        markeredgecolor=BLUE, markeredgewidth=0.7, zorder=2.1, label="one training",
    )  # fmt: skip
    label, mark = ("HeteroAKD, mean and range", "D") if n > 1 else ("HeteroAKD", "")
    if n:
        ax.plot(
            values, means, color=BLUE, linewidth=1.3, marker=mark, markersize=4, markeredgecolor="white",
            markeredgewidth=0.5, zorder=2.2 if n > 1 else 2, label=label,
        )  # fmt: skip
    diverged = [value for value, runs in panel.runs.items() if any(row["reason"] for row in runs.values())]
    if diverged:
        ax.plot(
            diverged, [0.03] * len(diverged), transform=ax.get_xaxis_transform(), linestyle="none", marker="x",
            color=VERMILLION, markersize=4.5, label="diverged training",
        )  # fmt: skip
    _x_axis(ax, values)
    ax.set_xlabel(f"{SYMBOLS[panel.axis]}  (at {SYMBOLS[panel.other]} = {panel.fixed:g})")


def _student(ax: Axes, mious: list[float], gain: float) -> None:
    """Mean and range of the student alone, and the line `gain` points above that mean."""
    if not mious:
        return
    mean = math.fsum(mious) / len(mious)
    label = "student, mean and range" if len(mious) > 1 else "student"
    ax.axhspan(min(mious), max(mious), color=BLACK, alpha=0.08, linewidth=0)
    ax.axhline(mean, color=BLACK, linewidth=1, linestyle=(0, (5, 2)), label=label)
    ax.axhline(mean + gain, color=VERMILLION, linewidth=1.2, linestyle=":", label=f"student + {gain:g} (paper)")


def _x_axis(ax: Axes, values: list[float]) -> None:
    """Ticks at the values that were run; logarithmic where they span a factor of ten."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    if max(values) >= 10 * min(values):
        ax.set_xscale("log")
        ax.margins(x=0.06)
    ax.xaxis.set_major_locator(FixedLocator(values))
    ax.xaxis.set_major_formatter(FixedFormatter([f"{value:g}" for value in values]))
    ax.xaxis.set_minor_locator(NullLocator())
