"""How trainings went: mIoU at every validation, a small panel a method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from benchmark.core.errors import KdsegError
from benchmark.report.figures.base import Figure, Row, Sources, facts, few, place
from benchmark.report.figures.style import BLACK, BLUE, GREY, PAGE, canvas
from benchmark.results.entries import PairEntries

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

ACROSS = 4
"""Panels in a line."""

Lines = dict[int, list[tuple[int, float]]]


def curve_figures(sources: Sources) -> list[Figure]:
    """One figure a pair whose runs were validated twice or more.

    Raises:
        KdsegError: there is no such pair.
    """
    figures = []
    for number, name in sources.names("curves").items():
        pair = sources.pairs[number]
        data = [
            {
                "method": entry.label,
                "role": entry.role,
                "seed": row["seed"],
                "iteration": iteration,
                "miou": miou,
                "run": row["id"],
            }
            for entry in pair.entries
            for row in sources.runs(entry)
            for iteration, miou in row["curve"]
        ]
        if max(_validations(data), default=0) > 1:
            figures.append(
                Figure(
                    name=name,
                    title="Training curves",
                    caption=_caption(pair, data),
                    data=tuple(data),
                    draw=partial(_draw, pair, data),
                    facts=facts(pair),
                )
            )
    if not figures:
        raise KdsegError(
            "curves: needs finished runs with two validations or more; these were validated once, at their end "
            "(the protocol's val_interval)"
        )
    return figures


def _validations(data: Sequence[Row]) -> list[int]:
    runs = [row["run"] for row in data if row["role"] == "method"]
    return [runs.count(run) for run in dict.fromkeys(runs)]


def _caption(pair: PairEntries, data: Sequence[Row]) -> str:
    seeds = sorted({row["seed"] for row in data if row["role"] != "teacher"})
    return " ".join(
        [
            f"Training curves: {place(pair)} mIoU in percent at every validation. Thin: one training each; thick: the "
            f"mean where all seeds of the method were validated (seeds {', '.join(map(str, seeds))}); grey: the mean "
            "of the student alone, in every panel; dotted: the teacher at its last iteration. The number that tables "
            "report is that of the last iteration, not of the best.",
            *few(len(seeds)),
        ]
    )


def _draw(pair: PairEntries, data: Sequence[Row]) -> Drawing:
    methods: dict[str, Lines] = {}
    for row in data:
        if row["role"] == "method":
            methods.setdefault(row["method"], {}).setdefault(row["seed"], []).append((row["iteration"], row["miou"]))
    student: Lines = {}
    for row in data:
        if row["role"] == "student":
            student.setdefault(row["seed"], []).append((row["iteration"], row["miou"]))
    teacher = [row["miou"] for row in data if row["role"] == "teacher"][-1:]
    down = math.ceil(len(methods) / ACROSS)
    figure = canvas(PAGE, 0.5 + 1.25 * down)
    axes = figure.subplots(down, ACROSS, sharex=True, sharey=True, squeeze=False)
    for ax, (method, lines) in zip(axes.flat, methods.items(), strict=False):
        ax.set_title(method if len(method) < 34 else method[:32] + "…", fontsize=6.6)
        _lines(ax, student, GREY, thin=False)
        _lines(ax, lines, BLUE, thin=True)
        for miou in teacher:
            ax.axhline(miou, color=BLACK, linewidth=0.8, linestyle=":")
    for ax in list(axes.flat)[len(methods) :]:
        ax.set_visible(False)
    figure.supxlabel("iteration", fontsize=7.5)
    figure.supylabel("mIoU (%)", fontsize=7.5)
    figure.suptitle(f"{pair.title} · {pair.facts['dataset']}, protocol {pair.facts['protocol']}", fontsize=8)
    return figure


def _lines(ax: Axes, lines: Lines, colour: str, thin: bool) -> None:
    for points in lines.values() if thin else ():
        ax.plot(*zip(*points, strict=True), color=colour, linewidth=0.6, alpha=0.5)
    shared = set.intersection(*(set(dict(points)) for points in lines.values())) if lines else set()
    mean = [(at, math.fsum(dict(points)[at] for points in lines.values()) / len(lines)) for at in sorted(shared)]
    if mean:
        ax.plot(
            *zip(*mean, strict=True), color=colour, linewidth=1.4, marker="o" if len(mean) < 12 else "", markersize=2
        )
