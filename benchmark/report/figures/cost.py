"""What a gain costs: Δ against the time of a training step, with the methods that nothing cheaper beats."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmark.core.errors import KdsegError
from benchmark.report.figures.base import Figure, Row, Sources, facts, few, place
from benchmark.report.figures.style import BLACK, BLUE, GREY, PAGE, canvas
from benchmark.results.entries import TIMED_APART, PairEntries

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing


def cost_figures(sources: Sources) -> list[Figure]:
    """One figure a pair with two methods or more: mean Δ against s/iteration relative to the student alone.

    Raises:
        KdsegError: there is no such pair.
    """
    figures = []
    for number, name in sources.names("cost").items():
        pair = sources.pairs[number]
        data = _rows(pair)
        if len(data) > 1:
            figures.append(
                Figure(
                    name=name,
                    title="Accuracy against cost",
                    caption=_caption(pair, data),
                    data=tuple(data),
                    draw=partial(_draw, pair, data),
                    facts=facts(pair),
                )
            )
    if not figures:
        raise KdsegError("cost: needs a pair with its student alone and two methods or more that have finished")
    return figures


def best(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Of (cost, gain) points those that no other beats: none is as cheap and better, or cheaper and as good."""
    return [not any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points) for cost, gain in points]


def _rows(pair: PairEntries) -> list[Row]:
    student = pair.student_entry
    if student is None or not student.iteration_s:
        return []
    rows: list[Row] = [
        {
            "number": 0,
            "method": entry.label,
            "cost": entry.iteration_s / student.iteration_s,
            "iteration_s": entry.iteration_s,
            "delta": entry.delta.mean,
            "delta_std": entry.delta.std,
            "n": entry.delta.n,
            "extra_parameters": entry.extra_parameters,
            "machines": "; ".join(entry.machines),
        }
        for entry in pair.entries
        if entry.delta and entry.iteration_s and entry.machines == student.machines
    ]
    front = best([(1.0, 0.0), *((row["cost"], row["delta"]) for row in rows)])[1:]  # the student alone takes part
    return [
        row | {"number": place_, "unbeaten": on} for place_, (row, on) in enumerate(zip(rows, front, strict=True), 1)
    ]


def _caption(pair: PairEntries, data: Sequence[Row]) -> str:
    ns = sorted({row["n"] for row in data})
    several = max(ns) > 1
    return " ".join(
        [
            f"Accuracy against cost: {place(pair)} Δ: mIoU (last iteration) minus that of the student alone with the "
            f"same seed, in points, mean over n = {', '.join(map(str, ns))} {'seeds' if several else 'seed'}"
            + ("; bars: ± its sample standard deviation. " if several else ". ")
            + "Cost: seconds per training iteration as a single run, with the teacher's forward pass, relative to the "
            "student alone, medians per run. Filled and joined: methods that nothing cheaper beats, the student alone "
            f"included. Only runs on the student's machine are compared ({data[0]['machines']}); tuning and "
            "preparation are not counted.",
            *([TIMED_APART] if pair.timed_apart else []),
            *few(min(ns)),
        ]
    )


def _draw(pair: PairEntries, data: Sequence[Row]) -> Drawing:
    figure = canvas(PAGE, max(2.6, 0.6 + 0.145 * len(data)))
    ax, key = figure.subplots(1, 2, width_ratios=(1.35, 1))
    ax.axhline(0, color=BLACK, linewidth=1, linestyle=(0, (5, 2)))
    ax.plot(1, 0, marker="s", color=BLACK, markersize=4.5, clip_on=False)
    front = sorted((row["cost"], row["delta"]) for row in data if row["unbeaten"])
    if len(front) > 1:
        ax.plot(*zip(*front, strict=True), drawstyle="steps-post", color=BLUE, linewidth=0.8, alpha=0.6, zorder=1.5)
    for row in data:
        colour = BLUE if row["unbeaten"] else GREY
        spread = row["delta_std"] if row["n"] > 1 else None
        ax.errorbar(
            row["cost"],
            row["delta"],
            yerr=spread,
            fmt="o",
            color=colour,
            markersize=4.2,
            elinewidth=0.7,
            markerfacecolor=colour if row["unbeaten"] else "white",
            markeredgewidth=0.9,
            zorder=2.2,
        )
    costs = [row["cost"] for row in data]
    if max(costs) >= 4 * min(min(costs), 1):
        _log_axis(ax, max(costs))
    ax.margins(x=0.08, y=0.1)
    ax.set_xlabel("training step, relative to the student alone")
    ax.set_ylabel("Δ mIoU (points)")
    _number(figure, ax, data)
    key.axis("off")
    lines = [("■", "Student alone", False), *((row["number"], row["method"], row["unbeaten"]) for row in data)]
    for line, (mark, text, bold) in enumerate(lines):
        style = {"transform": key.transAxes, "va": "top", "fontsize": 6.6, "weight": "bold" if bold else "normal"}
        key.text(0.03, 1 - line / len(lines), mark, ha="right", **style)
        key.text(0.06, 1 - line / len(lines), text, **style)
    figure.suptitle(f"{pair.title} · {pair.facts['dataset']}, protocol {pair.facts['protocol']}", fontsize=8)
    return figure


def _log_axis(ax: Axes, most: float) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    ticks = [tick for tick in (0.5, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= 1.5 * most]
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(FixedFormatter([f"{tick:g}×" for tick in ticks]))
    ax.xaxis.set_minor_locator(NullLocator())


def _number(figure: Drawing, ax: Axes, data: Sequence[Row]) -> None:
    """Numbers beside the points, each at the one of eight places that is farthest from all points and numbers."""
    import numpy as np

    figure.draw_without_rendering()  # the scales are known only now
    points = np.array([ax.transData.transform((row["cost"], row["delta"])) for row in data])
    taken: list[Any] = list(points)
    reach = 7.5 * figure.dpi / 72
    angles = np.pi / 4 * np.arange(8)
    for row, point in zip(data, points, strict=True):
        places = [point + reach * np.array([np.cos(angle), np.sin(angle)]) for angle in angles]
        others = [other for other in taken if other is not point]
        room = [min((np.hypot(*(where - other)) for other in others), default=0.0) for where in places]
        chosen = places[int(np.argmax(np.round(np.minimum(room, 2 * reach), 3)))]
        taken.append(chosen)
        offset = (chosen - point) * 72 / figure.dpi
        ax.annotate(
            str(row["number"]),
            (row["cost"], row["delta"]),
            xytext=tuple(offset),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=6.3,
            color=BLACK,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.2},
        )
