"""What `kdseg compare` shows."""

from __future__ import annotations

from collections.abc import Iterable

from benchmark.report.tables.base import LAST, MISSING, Cell, Section, Table, hole, mean_text, number
from benchmark.results.bootstrap import ImageInterval
from benchmark.results.comparison import Comparison
from benchmark.results.stats import ENOUGH

COLUMNS = ("Seed", "First (%)", "Second (%)", "Difference", "95 % over images")


def comparison_table(comparison: Comparison) -> Table:
    """One row a pair of runs, then their mean."""
    rows = [
        (
            Cell(" / ".join(dict.fromkeys(str(row["seed"]) for row in (pair.first, pair.second)))),
            Cell(number(pair.first["miou_last"])),
            Cell(number(pair.second["miou_last"])),
            Cell(number(pair.difference, signed=True)),
            _interval(pair.images),
        )
        for pair in comparison.runs
    ]
    if len(comparison.runs) > 1:
        mean = Cell(mean_text(comparison.difference, signed=True))
        rows.append(
            (Cell(f"mean, n = {comparison.difference.n}"), Cell(""), Cell(""), mean, _interval(comparison.images))
        )
    data = [
        {
            "first": pair.first["id"],
            "second": pair.second["id"],
            "first_seed": pair.first["seed"],
            "second_seed": pair.second["seed"],
            "first_miou": pair.first["miou_last"],
            "second_miou": pair.second["miou_last"],
            "difference": pair.difference,
            "images_low": pair.images and pair.images.low,
            "images_high": pair.images and pair.images.high,
        }
        for pair in comparison.runs
    ]
    section = Section(
        f"{comparison.first} minus {comparison.second}", f"{len(comparison.runs)} pairs of runs", COLUMNS, tuple(rows)
    )
    return Table("comparison", "Two sides compared", (section,), tuple(_caption(comparison)), tuple(data))


def _interval(interval: ImageInterval | None) -> Cell:
    return hole("no areas, or one block of images") if interval is None else Cell(_ends(interval.low, interval.high))


def _ends(low: float, high: float) -> str:
    return f"{number(low, True)} to {number(high, True)}"


def _caption(comparison: Comparison) -> Iterable[str]:
    difference = comparison.difference
    yield LAST
    if difference.n > 1:
        yield (
            f"Over seeds: mean difference {mean_text(difference, signed=True)} points (± sample standard deviation of "
            f"the paired differences, ddof = 1), 95 % t interval {_ends(difference.low, difference.high)}, two-sided "
            f"sign-flip p {comparison.p:.3g}, which is never below {2.0 ** (1 - difference.n):.3g}."
        )
    if difference.n < ENOUGH:
        yield f"No conclusion can be drawn from fewer than {ENOUGH} seeds."
    if any(pair.first["seed"] != pair.second["seed"] for pair in comparison.runs):
        yield "The two runs have other seeds, so they share neither initial weights nor batches."
    if comparison.images:
        yield (
            f"Over images: paired bootstrap over {comparison.images.blocks} blocks of images that depend on each "
            "other, for these trainings; it speaks of other images, not of other seeds."
        )
    if comparison.left_out:
        yield f"Left out: {'; '.join(comparison.left_out)}."
    yield f"{MISSING}: not known."
