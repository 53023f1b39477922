"""Two runs or two cells against each other: paired per seed, and per image by blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmark.core.errors import KdsegError, unknown
from benchmark.results.bootstrap import ImageInterval, difference_interval
from benchmark.results.frame import SKIPPED
from benchmark.results.results import Areas, Results
from benchmark.results.stats import Summary, flip_p, summary

Row = dict[str, Any]


@dataclass(frozen=True)
class PairedRuns:
    """A run of either side; `difference` in points, `images` its 95 % interval over the images (None: no areas)."""

    first: Row
    second: Row
    difference: float
    images: ImageInterval | None


@dataclass(frozen=True)
class Comparison:
    """First minus second.

    Attributes:
        runs: by seed; two single runs are a pair whatever their seeds.
        difference: of mIoU in points over the pairs; `p` is its two-sided sign-flip p.
        images: 95 % interval of the mean difference over the images, for these trainings.
        left_out: runs of one side that have no partner, and why.
    """

    first: str
    second: str
    runs: tuple[PairedRuns, ...]
    difference: Summary
    p: float
    images: ImageInterval | None
    left_out: tuple[str, ...]


def compare_runs(results: Results, first: str, second: str) -> Comparison:
    """Compare what two texts name (see `select`); of several things, the two measured against the same student.

    Raises:
        KdsegError: a text names nothing or too many things, or the two were not validated on the same images.
    """
    firsts, seconds = _select_both(results, first, second)
    single = len(firsts) == len(seconds) == 1
    by_seed = [{row["seed"]: row for row in rows} for rows in (firsts, seconds)]
    pairs = [(firsts[0], seconds[0])] if single else [(row, by_seed[1].get(seed)) for seed, row in by_seed[0].items()]
    finished = [(a, b) for a, b in pairs if b is not None and not a["reason"] and not b["reason"]]
    paired = {row["id"] for pair in finished for row in pair}
    left_out = tuple(
        f"{_name(row)}, seed {row['seed']}: {row['reason'] or 'no run of that seed on the other side'}"
        for row in (*firsts, *seconds)
        if row["id"] not in paired
    )
    if not finished:
        raise KdsegError(f"{first}, {second}: no two finished runs to compare ({'; '.join(left_out)})")
    for a, b in finished:
        _check_images(a, b)
    areas = [(results.areas(a["id"]), results.areas(b["id"])) for a, b in finished]
    runs = tuple(
        PairedRuns(a, b, a["miou_last"] - b["miou_last"], _interval([both]))
        for (a, b), both in zip(finished, areas, strict=True)
    )
    differences = [pair.difference for pair in runs]
    return Comparison(
        _title(firsts, single),
        _title(seconds, single),
        runs,
        summary(differences),
        flip_p(differences),
        _interval(areas),
        left_out,
    )


def select(results: Results, text: str) -> list[list[Row]]:
    """The rows of each run, or of all seeds of each cell, that a text names.

    It is the id of a run or the key of a cell (column `cell` of the tables' CSV), or the start of one; or the name of a
    method or of its variant.

    Raises:
        KdsegError: it names nothing.
    """
    rows = [row for row in results.rows.values() if row["outcome"] != SKIPPED]
    cells: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        cells.setdefault(row["cell_key"], []).append(row)
    named = {row["id"]: [row] for row in rows} | cells
    if text in named:
        return [named[text]]
    matches = [value for key, value in named.items() if len(text) >= 4 and key.startswith(text)]
    for column in ("variant", "method"):
        wanted = text.casefold()
        matches = matches or [value for value in cells.values() if value[0][column].casefold() == wanted]
    if not matches:
        raise unknown("run, cell or method", text, {row[column] for row in rows for column in ("variant", "method")})
    return matches


def _select_both(results: Results, first: str, second: str) -> tuple[list[Row], list[Row]]:
    """What the two texts name; if that is several things, the two that are measured against the same student.

    Raises:
        KdsegError: there are still several, whose keys are listed.
    """
    firsts, seconds = select(results, first), select(results, second)
    both = [(a, b) for a in firsts for b in seconds]
    if len(both) > 1:
        related = [(a, b) for a, b in both if _related(a[0], b[0])]
        if len(related) != 1:
            text, several = (first, firsts) if len(firsts) > 1 else (second, seconds)
            places = "; ".join(f"{value[0]['cell_key']} ({_name(value[0])})" for value in several[:6])
            more = f" and {len(several) - 6} more" if len(several) > 6 else ""
            raise KdsegError(f"{text}: names several, give the key of one: {places}{more}")
        both = related
    return both[0]


def _related(first: Row, second: Row) -> bool:
    teachers = {row["teacher_id"] for row in (first, second)} - {None}
    return first["setting_key"] == second["setting_key"] and len(teachers) < 2


def _check_images(first: Row, second: Row) -> None:
    for column in ("dataset", "images"):
        if first[column] != second[column]:
            raise KdsegError(
                f"{_name(first)} and {_name(second)}: cannot be compared, other {column}: "
                f"{first[column]} and {second[column]}"
            )


def _interval(areas: list[tuple[Areas | None, Areas | None]]) -> ImageInterval | None:
    known = [(first, second) for first, second in areas if first is not None and second is not None]
    if len(known) < len(areas):
        return None
    if any(first.names != second.names for first, second in known):
        raise KdsegError("the areas of the two are of other images, or in another order")
    return difference_interval([(first.values, second.values) for first, second in known], known[0][0].blocks)


def _title(rows: list[Row], single: bool) -> str:
    return _name(rows[0]) + (f", seed {rows[0]['seed']}" if single else "")


def _name(row: Row) -> str:
    pair = f"{row['teacher']} → {row['student']}" if row["teacher"] else row["student"]
    return f"{row['variant']}, {pair}, {row['dataset']}, {row['protocol']}"
