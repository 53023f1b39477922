"""Figure 6: mIoU against HeteroAKD's two loss weights, from records."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmark.core.errors import KdsegError
from benchmark.core.schema import content_hash
from benchmark.records.record import State
from benchmark.report.figures.base import Figure, Row, Sources, distinct
from benchmark.report.figures.style import BLACK, BLUE, COLUMN, VERMILLION, canvas
from benchmark.results.published import publication
from benchmark.results.stats import ENOUGH
from benchmark.spec.methods import STUDENT, UNDER_TEST

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

Rows = list[dict[str, Any]]

AXES = ("lambda1", "lambda2")
CLAIM = "figure6_minimum_gain"
PANEL = (COLUMN, 2.5)
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

    @property
    def pair(self) -> str:
        """`teacher → student`."""
        return f"{self.rows[0]['teacher']} → {self.rows[0]['student']}"

    def mious(self, runs: dict[int, dict[str, Any]]) -> list[float]:
        """mIoU per seed of `seeds`; empty if one diverged, or if there is no common seed."""
        rows = [runs[seed] for seed in self.seeds]
        return [] if any(row["reason"] for row in rows) else [row["miou_last"] for row in rows]


def figure6(sources: Sources) -> list[Figure]:
    """mIoU against λ1 and λ2, one figure a pair.

    The weight that is held fixed takes the value most runs have. λ = 0 is left out: without a term of the method
    it is a control, a row of the table, and a logarithmic axis has no place for it.

    Raises:
        KdsegError: no pair has results at two values of a weight.
    """
    rows = list(sources.results.rows.values())
    all_curves = _all_curves(rows)
    if not all_curves:
        have = sorted({row["variant"] for row in rows if row["method"] == UNDER_TEST})
        raise KdsegError(
            f"figure 6: needs finished runs of {UNDER_TEST} on one pair with two or more values of lambda1 or lambda2 "
            f"(above 0, all else equal), for example `{{name: {UNDER_TEST}, lambda2: [1.0, 10.0]}}` in a sweep's "
            f"methods; there are: {', '.join(have) or 'none'}"
        )
    gain = publication(UNDER_TEST).claim(CLAIM).value
    return [
        Figure(
            name=curves.name,
            title="Figure 6: mIoU against the loss weights of HeteroAKD",
            caption=caption(curves),
            data=tuple(_data(curves)),
            draw=partial(draw, curves, gain),
            facts={"dataset": curves.rows[0]["dataset"], "pair": curves.pair},
        )
        for curves in all_curves
    ]


def caption(curves: Curves) -> str:
    """What a reader must know of the figure, in one paragraph."""
    published, row = publication(UNDER_TEST), curves.rows[0]
    claim, seeds = published.claim(CLAIM), ", ".join(map(str, curves.seeds)) or "none"
    fixed = " and ".join(f"against {panel.axis} at {panel.other} = {panel.fixed:g}" for panel in curves.panels)
    parts = [
        f"HeteroAKD, mIoU {fixed}: our reconstruction of the paper's {claim.where}, whose axes are not known to us. "
        f"{row['teacher']} → {row['student']}, {row['dataset']}, protocol {row['protocol']}, "
        f"{max(row['iterations'] for row in curves.rows)} iterations.",
        "mIoU of the last iteration in percent, by mmseg's convention. Each circle is one training; the line is the "
        f"mean over the seeds that all settings have (n = {len(curves.seeds)}: {seeds}), the band their range from "
        "lowest to highest. One teacher, so no band holds any variance between teachers.",
    ]
    if curves.students:
        parts.append("Dashed: the student alone, mean and range of the same seeds.")
        if claim.value is not None:
            parts.append(f"Dotted: that mean + {claim.value:g}, the paper's {claim.quantity}.")
    else:
        parts.append("The student alone has not finished with all of these seeds: it has no line.")
    parts.append(f"Settings: {'; '.join(dict.fromkeys(row['variant'] for row in curves.rows))}.")
    if row["overrides"]:
        parts.append(
            "Recipe with " + ", ".join(f"{key}={value}" for key, value in sorted(row["overrides"].items())) + "."
        )
    diverged = [f"{row['variant']}, seed {row['seed']}" for row in curves.rows if row["reason"]]
    if diverged:
        parts.append(f"Diverged (crosses; the line breaks there): {'; '.join(diverged)}.")
    if row["dataset"] not in published.datasets:
        parts.append("This is none of the paper's datasets: the figure says nothing about the paper's claim.")
    if len(curves.seeds) < ENOUGH:
        parts.append(f"No conclusion can be drawn from fewer than {ENOUGH} seeds.")
    return " ".join([*parts, "A weight of 0 is a control, not a setting of the method: it is in the table, not here."])


def _all_curves(known: Rows) -> list[Curves]:
    rows = [row for row in known if row["outcome"] in (State.DONE, State.DIVERGED)]
    groups: dict[str, Rows] = {}
    for row in rows:
        if row["method"] == UNDER_TEST and all(row["hyper"].get(axis, 0) > 0 for axis in AXES):
            rest = {key: value for key, value in row["hyper"].items() if key not in AXES}
            same = ("setting_key", "teacher_model", "teacher_id", "method_version")
            groups.setdefault(content_hash([*(row[name] for name in same), rest]), []).append(row)
    panels = {key: of_group for key, group in groups.items() if (of_group := _panels(group))}
    stems = {key: _stem(groups[key][0]) for key in panels}
    names = dict(zip(stems, distinct(list(stems.values()), [key[:6] for key in stems]), strict=True))
    return [_curves(names[key], panels[key], rows) for key in sorted(panels, key=names.__getitem__)]


def _curves(name: str, panels: tuple[Panel, ...], rows: Rows) -> Curves:
    attempted = [set(runs) for panel in panels for runs in panel.runs.values()]
    seeds = tuple(sorted(set.intersection(*attempted)))
    first = next(iter(panels[0].runs.values()))
    setting = next(iter(first.values()))["setting_key"]
    alone = {
        row["seed"]: row["miou_last"]
        for row in sorted(rows, key=lambda row: row["method_version"])
        if row["method"] == STUDENT and row["setting_key"] == setting and not row["reason"]
    }
    students = {seed: alone[seed] for seed in seeds} if set(seeds) <= set(alone) else {}
    return Curves(name, panels, seeds, students)


def _panels(group: Rows) -> tuple[Panel, ...]:
    """A panel for each weight that has results at two values or more, the other one held where most of them are."""
    panels = []
    for axis, other in (AXES, AXES[::-1]):
        lines: dict[float, dict[float, dict[int, dict[str, Any]]]] = {}
        for row in sorted(group, key=lambda row: row["hyper"][axis]):
            line = lines.setdefault(row["hyper"][other], {})
            line.setdefault(row["hyper"][axis], {})[row["seed"]] = row
        defaults = {row["hyper"][other] for row in group if not set("(:") & set(row["variant"])}
        # In a full grid all lines are as long: then the one through the method's default setting.
        fixed = max(sorted(lines), key=lambda value: (len(lines[value]), value in defaults))
        finished = [runs for runs in lines[fixed].values() if not all(row["reason"] for row in runs.values())]
        if len(finished) > 1:
            panels.append(Panel(axis, other, fixed, lines[fixed]))
    return tuple(panels)


def _stem(row: dict[str, Any]) -> str:
    return f"figure6_{row['dataset']}_{row['protocol']}_{row['teacher_model']}_{row['model']}"


def _data(curves: Curves) -> Iterator[Row]:
    for panel in curves.panels:
        for value, runs in panel.runs.items():
            averaged = bool(curves.mious(runs))
            for seed, row in sorted(runs.items()):
                yield {
                    "panel": panel.axis,
                    "value": f"{value:g}",
                    "fixed": panel.other,
                    "fixed_value": f"{panel.fixed:g}",
                    "seed": seed,
                    "in_mean": averaged and seed in curves.seeds,
                    "miou": row["miou_last"],
                    "delta": row["delta"],
                    "outcome": row["outcome"],
                    "run": row["id"],
                }
    for seed, miou in curves.students.items():
        yield {
            "panel": STUDENT,
            "value": "",
            "fixed": "",
            "fixed_value": "",
            "seed": seed,
            "in_mean": True,
            "miou": miou,
            "delta": None,
            "outcome": State.DONE,
            "run": "",
        }


def draw(curves: Curves, gain: float | None) -> Drawing:
    """The drawing of a curves; `gain` (points) is where the paper's line is above the student's, None: unknown."""
    figure = canvas(PANEL[0] * len(curves.panels), PANEL[1])
    axes = figure.subplots(1, len(curves.panels), sharey=True, squeeze=False)[0]
    for ax, panel in zip(axes, curves.panels, strict=True):
        _panel(ax, panel, curves, gain)
    axes[0].set_ylabel("mIoU (%)")
    row = curves.rows[0]
    seeds = "1 seed" if len(curves.seeds) == 1 else f"{len(curves.seeds)} seeds"
    setting = f"{row['dataset']}, protocol {row['protocol']}, {seeds}; our reconstruction"
    parts = (curves.pair, setting)
    figure.suptitle((" · " if len(axes) > 1 else "\n").join(parts), fontsize=8)
    entries = dict(entry[::-1] for ax in axes for entry in zip(*ax.get_legend_handles_labels(), strict=True))
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=3 if len(axes) > 1 else 2,
        frameon=False,
        columnspacing=1.2,
        handletextpad=0.6,
        borderaxespad=0.2,
    )
    return figure


def _panel(ax: Axes, panel: Panel, curves: Curves, gain: float | None) -> None:
    n = len(curves.seeds)
    _student(ax, list(curves.students.values()), gain)
    values = list(panel.runs)
    mious = [curves.mious(runs) or [math.nan] for runs in panel.runs.values()]
    means = [math.fsum(per_seed) / len(per_seed) for per_seed in mious]
    if n > 1:
        lows, highs = [min(per_seed) for per_seed in mious], [max(per_seed) for per_seed in mious]
        ax.fill_between(values, lows, highs, color=BLUE, alpha=0.18, linewidth=0)
    finished = [
        (value, row["miou_last"]) for value, runs in panel.runs.items() for row in runs.values() if not row["reason"]
    ]
    ax.plot(
        *zip(*finished, strict=True),
        linestyle="none",
        marker="o",
        markersize=3,
        markerfacecolor="white",
        markeredgecolor=BLUE,
        markeredgewidth=0.7,
        zorder=2.1,
        label="one training",
    )
    label, mark = ("HeteroAKD, mean and range", "D") if n > 1 else ("HeteroAKD", "")
    if n:
        ax.plot(
            values,
            means,
            color=BLUE,
            linewidth=1.3,
            marker=mark,
            markersize=4,
            markeredgecolor="white",
            markeredgewidth=0.5,
            zorder=2.2 if n > 1 else 2,
            label=label,
        )
    diverged = [value for value, runs in panel.runs.items() if any(row["reason"] for row in runs.values())]
    if diverged:
        ax.plot(
            diverged,
            [0.03] * len(diverged),
            transform=ax.get_xaxis_transform(),
            linestyle="none",
            marker="x",
            color=VERMILLION,
            markersize=4.5,
            label="diverged training",
        )
    _x_axis(ax, values)
    ax.set_xlabel(f"{SYMBOLS[panel.axis]}  (at {SYMBOLS[panel.other]} = {panel.fixed:g})")


def _student(ax: Axes, mious: list[float], gain: float | None) -> None:
    """Mean and range of the student alone, and the line `gain` points above that mean."""
    if not mious:
        return
    mean = math.fsum(mious) / len(mious)
    label = "student, mean and range" if len(mious) > 1 else "student"
    ax.axhspan(min(mious), max(mious), color=BLACK, alpha=0.08, linewidth=0)
    ax.axhline(mean, color=BLACK, linewidth=1, linestyle=(0, (5, 2)), label=label)
    if gain is not None:
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
