"""What methods cost beside what they gain, and what is left of it at equal wall-clock time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from benchmark.report.tables.base import (
    HOLES,
    MISSING,
    ONE_TEACHER,
    SPREAD,
    Cell,
    Section,
    Table,
    best_texts,
    delta_cell,
    few_seeds,
    hole,
    lacking,
    number,
    pair_columns,
    place,
    summary_cell,
)
from benchmark.results.entries import TIMED_APART, Entry, PairEntries
from benchmark.results.results import Results
from benchmark.results.stats import Summary, complete, summary

COST = ("Method", "Δ (points)", "s/iteration", "of it teacher", "Device-hours", "Peak memory (MB)", "Extra parameters")
CLOCK = ("Method", "Iterations in that time", "mIoU then (%)", "Δ then (points)", "Δ at the end", "n")


def cost_tables(results: Results) -> list[Table]:
    """Time, memory and parameters of every method setting, as a single run."""
    pairs = [pair for pair in results.pairs if pair.teacher]
    sections = [
        Section(
            pair.title,
            place(pair),
            COST,
            tuple(_cost_row(entry, results) for entry in pair.entries if entry.role != "teacher"),
        )
        for pair in pairs
    ]
    machines = sorted({machine for pair in pairs for entry in pair.entries for machine in entry.machines})
    caption = [
        "s/iteration: seconds per iteration as a single run (step, teacher's forward and waiting for data); the share "
        "of the teacher's forward in it. Device-hours: iterations × s/iteration × devices. All are means over the "
        "seeds. Peak memory is the highest of the runs' jobs, and a job may train several runs together. Extra "
        "parameters: trainable ones that the method adds during training.",
        SPREAD,
        ONE_TEACHER,
        HOLES,
    ]
    if machines:
        mixed = ": seconds of different machines do not compare" if len(machines) > 1 else ""
        caption.append(f"Measured on {'; '.join(machines)}{mixed}.")
    apart = [pair.title for pair in pairs if pair.timed_apart]
    if apart:
        caption.append(f"{'; '.join(apart)}: {TIMED_APART[0].lower()}{TIMED_APART[1:]}")
    data = [_cost_numbers(pair, entry, results) for pair in pairs for entry in pair.entries if entry.role != "teacher"]
    return _tables("cost", "What the methods cost", sections, caption, data, results, pairs)


def clock_tables(results: Results) -> list[Table]:
    """mIoU at the last validation within the time that the student alone takes, on the same machine."""
    pairs = [pair for pair in results.pairs if pair.teacher and pair.student_entry]
    views = [
        (pair, entry, *_in_time(entry, results)) for pair in pairs for entry in pair.entries if entry.role != "teacher"
    ]
    by_pair = [[view for view in views if view[0] is pair] for pair in pairs]
    sections = [
        Section(pair.title, place(pair), CLOCK, _clock_rows(own)) for pair, own in zip(pairs, by_pair, strict=True)
    ]
    caption = [
        "mIoU in percent at the last validation that a run reaches within the time the student alone of its seed takes "
        "for all of its iterations, by medians of seconds per iteration. Its learning rate has not come down there "
        "yet, so what a schedule of that length would reach is more: a bound from below.",
        SPREAD,
        ONE_TEACHER,
        *few_seeds([entry.n for _, entry, *_ in views if entry.n]),
        HOLES,
    ]
    data = [_clock_numbers(*view) for view in views]
    return _tables("wall-clock", "mIoU at equal wall-clock time", sections, caption, data, results, pairs)


def _tables(
    name: str,
    title: str,
    sections: list[Section],
    caption: list[str],
    data: list[dict[str, Any]],
    results: Results,
    pairs: list[PairEntries],
) -> list[Table]:
    if not sections:
        return []
    return [Table(name, title, tuple(sections), tuple(caption), tuple(data), lacking(results, pairs))]


def _means(entry: Entry, results: Results) -> dict[str, float] | None:
    """Means over the seeds of what a run costs, and the highest peak memory; None if a seed is missing."""
    runs = complete(results.runs(entry))
    if not runs:
        return None
    hours = [row["iterations"] * row["iteration_s"] * row["devices"] / 3600 for row in runs]
    return {
        "iteration_s": _mean(row["iteration_s"] for row in runs),
        "teacher_share": _mean(row["teacher_s"] / row["iteration_s"] for row in runs),
        "device_hours": _mean(hours),
        "memory_mb": max(row["memory_mb"] for row in runs),
    }


def _mean(values: Iterable[float]) -> float:
    terms = list(values)
    return math.fsum(terms) / len(terms)


def _cost_row(entry: Entry, results: Results) -> tuple[Cell, ...]:
    means = _means(entry, results)
    extra = Cell(MISSING if entry.extra_parameters is None else f"{entry.extra_parameters:,}")
    if means is None:
        reason = "; ".join(entry.holes)
        return (
            Cell(entry.label),
            *(
                [hole(reason)] + [Cell(MISSING)] * 4
                if entry.role == "method"
                else [Cell(""), hole(reason)] + [Cell(MISSING)] * 3
            ),
            extra,
        )
    hours = means["device_hours"]
    return (
        Cell(entry.label),
        delta_cell(entry),
        Cell(f"{means['iteration_s']:.3f}"),
        Cell(f"{100 * means['teacher_share']:.0f} %"),
        Cell(f"{hours:.2f}" if hours >= 0.1 else f"{hours:.2g}"),
        Cell(f"{means['memory_mb']:,.0f}"),
        extra,
    )


def _cost_numbers(pair: PairEntries, entry: Entry, results: Results) -> dict[str, Any]:
    means = _means(entry, results) or {}
    return {
        **_place(pair, entry),
        "delta_mean": entry.delta and entry.delta.mean,
        **{name: means.get(name) for name in ("iteration_s", "teacher_share", "device_hours", "memory_mb")},
        "extra_parameters": entry.extra_parameters,
    }


def _in_time(entry: Entry, results: Results) -> tuple[Summary | None, Summary | None, Summary | None, str]:
    """Iterations, mIoU and Δ within the student's time, over all seeds; or why there are none."""
    runs = complete(results.runs(entry))
    if not runs:
        return None, None, None, "; ".join(entry.holes) or "not run"
    reached, mious, deltas = [], [], []
    for row in runs:
        student = results.student(row)
        if student is None or student["reason"]:
            return None, None, None, f"student alone, seed {row['seed']}: no result"
        if (row["device"], row["processor"]) != (student["device"], student["processor"]):
            return None, None, None, "the student alone was trained on another machine"
        budget = student["iterations"] * student["iteration_s"]
        within = [point for point in row["curve"] if point[0] * row["iteration_s"] <= budget * (1 + 1e-9)]
        if not within:
            return None, None, None, f"seed {row['seed']}: no validation within that time"
        reached.append(within[-1][0])
        mious.append(within[-1][1])
        deltas.append(within[-1][1] - student["miou_last"])
    return summary(reached), summary(mious), summary(deltas), ""


def _clock_rows(views: list[tuple[Any, ...]]) -> tuple[tuple[Cell, ...], ...]:
    best = best_texts(miou.mean for _, _, _, miou, _, _ in views if miou)
    rows = []
    for _, entry, reached, miou, delta, reason in views:
        then = summary_cell(miou, [reason], bold=bool(miou) and number(miou.mean) in best)
        method = entry.role == "method"
        rows.append(
            (
                Cell(entry.label),
                Cell(f"{reached.mean:.0f}" if reached else MISSING),
                then,
                summary_cell(delta, [], signed=True) if method else Cell(""),
                delta_cell(entry),
                Cell(str(entry.n)),
            )
        )
    return tuple(rows)


def _clock_numbers(
    pair: PairEntries, entry: Entry, reached: Summary | None, miou: Summary | None, delta: Summary | None, reason: str
) -> dict[str, Any]:
    return {
        **_place(pair, entry),
        "n": entry.n,
        "iterations_mean": reached and reached.mean,
        "miou_then_mean": miou and miou.mean,
        "miou_then_std": miou and miou.std,
        "delta_then_mean": delta and delta.mean,
        "delta_then_std": delta and delta.std,
        "delta_end_mean": entry.delta and entry.delta.mean,
        "missing": reason,
    }


def _place(pair: PairEntries, entry: Entry) -> dict[str, Any]:
    return {
        **pair_columns(pair),
        "role": entry.role,
        "method": entry.method,
        "variant": entry.variant,
    }
