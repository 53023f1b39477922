"""What each method does over all pairs of a dataset and protocol together."""

from __future__ import annotations

import math
from typing import Any

from benchmark.report.tables.base import ONE_TEACHER, Cell, Section, Table, hole, lacking, number
from benchmark.results.entries import Entry, PairEntries, variant_order
from benchmark.results.results import Results
from benchmark.results.stats import ENOUGH, MAX_FLIPPED, UNDER_COVERAGE, Pooled, complete, holm, pooled

COLUMNS = ("Method", "Pairs", "Mean Δ (points)", "95 % bootstrap", "p", "p (Holm)", "Wins", "Independent")


def pooled_tables(results: Results) -> list[Table]:
    """One table, a section per dataset and protocol: mean Δ over seed × pair, its interval and p, Holm over methods."""
    groups: dict[tuple[str, str], list[PairEntries]] = {}
    for pair in results.pairs:
        if pair.teacher and not pair.facts["off_protocol"]:
            groups.setdefault((pair.facts["dataset"], pair.facts["protocol"]), []).append(pair)
    sections = [_section(*key, pairs, results) for key, pairs in groups.items()]
    if not sections:
        return []
    caption = (
        "Mean of all Δ (mIoU minus that of the student alone with the same seed, in points) over seeds and pairs. "
        "Wins: Δ above 0. Independent: students' runs behind them, since Δ that share one are drawn and flipped "
        f"together. p: two-sided sign-flip test, exact for up to {MAX_FLIPPED} of those, never below 2^(1−that "
        "number); Holm: corrected for all methods of the section. 95 % bootstrap: percentile interval of the mean, "
        "seeds drawn within each student's setting.",
        UNDER_COVERAGE,
        ONE_TEACHER,
        f"No conclusion can be drawn from fewer than {ENOUGH} independent runs, and no interval is given.",
        "–: a seed of the method is missing on a pair that it was planned for; no mean runs over a hole. Where it was "
        "planned for some of the pairs only, the mean is over those.",
    )
    pairs = [pair for group in groups.values() for pair in group]
    return [
        Table(
            "pooled",
            "Methods over all pairs",
            tuple(section for section, _ in sections),
            caption,
            tuple(row for _, data in sections for row in data),
            lacking(results, pairs),
        )
    ]


def _section(
    name: str, protocol: str, pairs: list[PairEntries], results: Results
) -> tuple[Section, list[dict[str, Any]]]:
    variants: dict[tuple[str, str], list[tuple[PairEntries, Entry]]] = {}
    for pair in pairs:
        for entry in pair.entries:
            if entry.role == "method":
                variants.setdefault((entry.method, entry.variant), []).append((pair, entry))
    order = sorted(variants, key=lambda key: variant_order(*key))
    holes = {key: _holes(variants[key]) for key in order}
    values = {key: pooled(_strata(variants[key], results)) for key in order if not holes[key]}
    adjusted = dict(zip(values, holm([over.p for over in values.values()]), strict=True))
    rows, data = [], []
    for key in order:
        over, share = values.get(key), f"{len(variants[key])}/{len(pairs)}"
        rows.append((Cell(key[1]), Cell(share), *_cells(over, adjusted.get(key), holes[key])))
        data.append(
            {
                "dataset": name,
                "protocol": protocol,
                "method": key[0],
                "variant": key[1],
                "pairs": len(variants[key]),
                "of_pairs": len(pairs),
                "n": over.n if over else 0,
                "independent": over and over.units,
                "delta_mean": over and over.mean,
                "low": over and over.low,
                "high": over and over.high,
                "p": over and over.p,
                "p_exact": over and over.exact,
                "p_holm": adjusted.get(key),
                "wins": over and over.wins,
                "missing": holes[key],
            }
        )
    text = "1 pair" if len(pairs) == 1 else f"{len(pairs)} pairs"
    return Section(f"{name}, protocol {protocol}", text, COLUMNS, tuple(rows)), data


def _holes(entries: list[tuple[PairEntries, Entry]]) -> str:
    gaps = [(pair.title, entry.holes or entry.delta_holes) for pair, entry in entries if not entry.delta]
    return "; ".join(f"{title}: {'; '.join(reasons) or 'not run'}" for title, reasons in gaps)


def _strata(entries: list[tuple[PairEntries, Entry]], results: Results) -> list[list[list[float]]]:
    """Student setting -> student run -> the Δ of all pairs with that student run."""
    strata: dict[str, dict[str, list[float]]] = {}
    for pair, entry in entries:
        for row in complete(results.runs(entry)):
            strata.setdefault(pair.facts["setting_key"], {}).setdefault(row["delta_key"], []).append(row["delta"])
    return [list(units.values()) for units in strata.values()]


def _cells(over: Pooled | None, adjusted: float | None, holes: str) -> list[Cell]:
    if over is None or adjusted is None:
        return [hole(holes)] + [Cell("–")] * 5
    known = not math.isnan(over.low) and over.units >= ENOUGH
    interval = f"{number(over.low, True)} to {number(over.high, True)}" if known else "–"
    return [
        Cell(number(over.mean, True)),
        Cell(interval),
        Cell(_p(over.p)),
        Cell(_p(adjusted)),
        Cell(f"{over.wins}/{over.n}"),
        Cell(str(over.units)),
    ]


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
