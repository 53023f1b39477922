"""Per class: the student alone's IoU, and what each method adds or takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmark.report.tables.base import (
    ONE_TEACHER,
    Cell,
    Section,
    Table,
    few_seeds,
    hole,
    lacking,
    pair_columns,
    place,
    summary_cell,
)
from benchmark.results.entries import Entry, PairEntries
from benchmark.results.results import Results
from benchmark.results.stats import Summary, complete, summary
from benchmark.spec.definitions import dataset

SIDE_BY_SIDE = 4
"""Methods that a section shows: more have no room."""


def class_tables(results: Results) -> list[Table]:
    """One table per dataset and protocol: a section per pair and few methods, one row a class."""
    groups: dict[tuple[str, str], list[PairEntries]] = {}
    for pair in results.pairs:
        if pair.teacher and any(entry.delta for entry in pair.entries):
            groups.setdefault((pair.facts["dataset"], pair.facts["protocol"]), []).append(pair)
    return [_table(name, protocol, pairs, results) for (name, protocol), pairs in groups.items()]


def class_deltas(entry: Entry, name: str, results: Results) -> Summary | str:
    """Paired Δ of one class's IoU over the seeds, in points, or why there is none."""
    runs = complete(results.runs(entry))
    if not runs or entry.delta_holes:
        return "; ".join(entry.holes or entry.delta_holes) or "not run"
    values = []
    for row in runs:
        student = results.student(row)
        method_iou, student_iou = row["iou"].get(name), student["iou"].get(name) if student else None
        if method_iou is None or student_iou is None:
            return "a class with an empty union has no IoU"
        values.append(method_iou - student_iou)
    return summary(values)


def _table(name: str, protocol: str, pairs: list[PairEntries], results: Results) -> Table:
    sections, data = [], []
    for pair in pairs:
        methods = [entry for entry in pair.entries if entry.role == "method"]
        names = [label for label in dataset(name).classes if _known(pair, label, results)]
        groups = [methods[at : at + SIDE_BY_SIDE] for at in range(0, len(methods), SIDE_BY_SIDE)]
        for part, group in enumerate(groups, 1):
            title = pair.title + (f" ({part} of {len(groups)})" if len(groups) > 1 else "")
            rows = tuple(_row(pair, label, group, results) for label in names)
            columns = ("Class", "Student alone (%)", *(f"Δ {entry.label}" for entry in group))
            sections.append(Section(title, place(pair), columns, rows))
        data += [_numbers(pair, entry, label, results) for entry in methods for label in names]
    counts = [entry.n for pair in pairs for entry in pair.entries if entry.role == "method" and entry.n]
    caption = (
        "IoU of the last iteration per class, in percent; Δ: that of the method minus that of the student alone with "
        "the same seed, in points. ± is the sample standard deviation (ddof = 1) over the seeds, of the paired "
        "differences where it follows a Δ. –: a class with an empty union has no IoU, or a seed is missing.",
        ONE_TEACHER,
        *few_seeds(counts),
    )
    title = f"Δ per class on {name}, protocol {protocol}"
    return Table(f"classes-{name}-{protocol}", title, tuple(sections), caption, tuple(data), lacking(results, pairs))


def _known(pair: PairEntries, label: str, results: Results) -> bool:
    student = pair.student_entry
    return student is not None and any(row and label in row["iou"] for row in results.runs(student))


def _row(pair: PairEntries, label: str, group: Sequence[Entry], results: Results) -> tuple[Cell, ...]:
    student = pair.student_entry
    alone = complete(row["iou"].get(label) if row else None for row in results.runs(student)) if student else []
    deltas = (class_deltas(entry, label, results) for entry in group)
    return (
        Cell(label),
        summary_cell(summary(alone) if alone else None, ["a seed is missing, or the union is empty"]),
        *(hole(delta) if isinstance(delta, str) else summary_cell(delta, [], signed=True) for delta in deltas),
    )


def _numbers(pair: PairEntries, entry: Entry, label: str, results: Results) -> dict[str, Any]:
    either = class_deltas(entry, label, results)
    delta = either if isinstance(either, Summary) else None
    return {
        **pair_columns(pair),
        "method": entry.method,
        "variant": entry.variant,
        "class": label,
        "n": delta.n if delta else 0,
        "delta_mean": delta and delta.mean,
        "delta_std": delta and delta.std,
    }
