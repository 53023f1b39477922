"""Where a method helps and where it hurts: Δ of IoU per class, a heat map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from benchmark.core.errors import KdsegError
from benchmark.report.figures.base import Figure, Row, Sources, facts, few, place
from benchmark.report.figures.style import GREY, PAGE, canvas
from benchmark.results.entries import Entry, PairEntries
from benchmark.spec import definitions

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

MOST = 40
"""Classes that a page has room for; of more, those are shown whose Δ differ most from 0."""
NUMBERED = 21
"""Classes up to which cells have room for a number."""


def class_figures(sources: Sources) -> list[Figure]:
    """One figure a pair: mean Δ of IoU (points) per method and class over the seeds, paired by seed.

    Raises:
        KdsegError: no method has a finished run beside its student alone.
    """
    figures = []
    for number, name in sources.names("classes").items():
        pair = sources.pairs[number]
        data = [row for entry in pair.entries if entry.role == "method" for row in _rows(sources, pair, entry)]
        if data:
            figures.append(
                Figure(
                    name=name,
                    title="Δ of IoU per class",
                    caption=_caption(pair, data),
                    data=tuple(data),
                    draw=partial(_draw, pair, data),
                    facts=facts(pair),
                )
            )
    if not figures:
        raise KdsegError("classes: needs a finished run of a method and of its student alone, with the same seed")
    return figures


def _rows(sources: Sources, pair: PairEntries, entry: Entry) -> list[Row]:
    """Per class the mean difference over the entry's seeds; none where a seed is missing: no mean runs over a hole."""
    if entry.delta is None:
        return []
    runs = sources.runs(entry)
    alone = [sources.results.student(row) for row in runs]
    rows = []
    for name in definitions.dataset(pair.facts["dataset"]).classes:
        method_ious = [row["iou"].get(name) for row in runs]
        student_ious = [row["iou"].get(name) if row else None for row in alone]
        known = None not in method_ious and None not in student_ious
        deltas = [a - b for a, b in zip(method_ious, student_ious, strict=True)] if known else []
        rows.append(
            {
                "method": entry.label,
                "class": name,
                "delta": math.fsum(deltas) / len(deltas) if deltas else math.nan,
                "n": len(deltas),
            }
        )
    return rows


def _shown(data: Sequence[Row]) -> list[str]:
    """The classes of the columns, in the data set's order."""
    largest: dict[str, float] = {}
    for row in data:
        size = 0.0 if math.isnan(row["delta"]) else abs(row["delta"])
        largest[row["class"]] = max(largest.get(row["class"], 0.0), size)
    chosen = sorted(largest, key=largest.__getitem__, reverse=True)[:MOST]
    return [name for name in largest if name in chosen]


def _caption(pair: PairEntries, data: Sequence[Row]) -> str:
    count, shown = len({row["class"] for row in data}), len(_shown(data))
    parts = [
        f"Per-class Δ: {place(pair)} IoU of the last iteration minus that of the student alone with the same seed, in "
        "points, mean over the seeds. Blue: the method is better; red: worse. –: the class has no pixel in truth and "
        "prediction of a run, so that it has no IoU.",
    ]
    if shown < count:
        parts.append(f"The {shown} of {count} classes with the largest Δ in either direction; the data hold all.")
    return " ".join([*parts, *few(min(entry.n for entry in pair.entries if entry.delta))])


def _draw(pair: PairEntries, data: Sequence[Row]) -> Drawing:
    import numpy as np

    methods, classes = list(dict.fromkeys(row["method"] for row in data)), _shown(data)
    values = {(row["method"], row["class"]): row["delta"] for row in data}
    table = np.array([[values[method, name] for name in classes] for method in methods])
    figure = canvas(PAGE, 1.1 + 0.19 * len(methods))
    ax = figure.subplots()
    limit = float(np.nanmax(np.abs(table))) if np.isfinite(table).any() else 1.0
    image = ax.imshow(table, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    ax.set_xticks(range(len(classes)), classes, rotation=90 if len(classes) > NUMBERED else 35, ha="right")
    if len(classes) > NUMBERED:
        ax.tick_params(axis="x", labelsize=5.5)
        for label in ax.get_xticklabels():
            label.set_horizontalalignment("center")
    else:
        for label in ax.get_xticklabels():
            label.set_rotation_mode("anchor")
    ax.set_yticks(range(len(methods)), methods)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xticks(np.arange(len(classes) + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(len(methods) + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=0.8)
    ax.tick_params(which="minor", length=0)
    for (y, x), value in np.ndenumerate(table):
        if math.isnan(value):
            ax.text(x, y, "–", ha="center", va="center", fontsize=6, color=GREY)
        elif len(classes) <= NUMBERED:
            colour = "white" if abs(value) > 0.62 * limit else "black"
            text = f"{value:+.1f}".replace("-", "−") if round(value, 1) else "0.0"
            ax.text(x, y, text, ha="center", va="center", fontsize=6, color=colour)
    bar = figure.colorbar(image, ax=ax, pad=0.01, aspect=max(10, 2 * len(methods)), fraction=0.03)
    bar.set_label("Δ of IoU (points)", fontsize=7)
    bar.outline.set_visible(False)
    ax.set_title(f"{pair.title} · {pair.facts['dataset']}, protocol {pair.facts['protocol']}", fontsize=8, loc="left")
    return figure
