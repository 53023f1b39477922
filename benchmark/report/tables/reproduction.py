"""The reproduction table: published | ours | difference | verdict, on the absolute mIoU and on Δ."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from benchmark.report.tables.base import (
    HOLES,
    MISSING,
    ONE_TEACHER,
    Cell,
    Section,
    Table,
    lacking,
    mean_text,
    number,
    submit_line,
)
from benchmark.results.published import Kind, Number, numbers, papers, publication
from benchmark.results.reproduction import Compared, compare, has_counterpart
from benchmark.results.results import Results
from benchmark.results.stats import ENOUGH, Summary
from benchmark.results.verdicts import TOLERANCE, Judgement, Verdict

COLUMNS = (
    "Method",
    "Published (%)",
    "Ours (%)",
    "Difference",
    "Verdict",
    "Published Δ",
    "Our Δ",
    "Difference of Δ",
    "Verdict on Δ",
)


def reproduction_tables(results: Results) -> list[Table]:
    """Every published number that the suite has dataset, networks and method of, beside our runs."""
    every = [cell for paper in papers() for cell in numbers(publication(paper))]
    covered = [cell for cell in every if has_counterpart(cell)]
    comparisons = [compared for cell in covered for compared in compare(results, cell)]
    shown = [compared for compared in comparisons if compared.number.value is not None or compared.entry]
    groups = groupby(
        shown, key=lambda compared: (compared.number.paper, compared.number.table.name, compared.number.column.name)
    )
    sections = tuple(_section(list(group)) for _, group in groups)
    pairs = [compared.pair for compared in shown if compared.pair]
    hidden = len({id(compared.number) for compared in comparisons} - {id(compared.number) for compared in shown})
    waiting = [compared for compared in shown if compared.absolute.verdict is Verdict.NOT_RUN]
    return [
        Table(
            name="reproduction",
            title="Published numbers and ours",
            sections=sections,
            caption=tuple(_caption(every, covered, hidden)),
            data=tuple(_numbers(compared) for compared in comparisons),
            missing=_missing(results, pairs, waiting),
        )
    ]


def _section(comparisons: list[Compared]) -> Section:
    first = comparisons[0].number
    parts = [first.table.where, f"{first.table.dataset} {first.table.split}"]
    parts.append(f"protocol: {first.protocol}" + (" (inferred)" if first.table.protocol_inferred else ""))
    parts += [f"checkpoint: {first.table.selection}", str(first.table.kind)]
    if first.table.note:
        parts.append(first.table.note)
    return Section(
        f"{first.source}, {first.table.title}: {first.column.name}",
        " · ".join(parts),
        COLUMNS,
        tuple(_row(compared) for compared in comparisons),
    )


def _row(compared: Compared) -> tuple[Cell, ...]:
    cell = compared.number
    label = compared.entry.variant if compared.entry and len(cell.row.variants) > 1 else cell.row.name
    notes = (cell.row.note,) if cell.row.note else ()
    mark = () if cell.kind is Kind.REPORTED else (str(cell.kind),)
    method = cell.row.method not in ("teacher", "student")
    return (
        Cell(label, notes),
        Cell(number(cell.value), mark) if cell.value is not None else Cell(MISSING, ("unknown to us",)),
        _ours(compared.ours, compared, signed=False),
        _difference(compared.absolute),
        _verdict(compared.absolute),
        *(_delta_cells(compared, mark) if method else [Cell("")] * 4),
    )


def _delta_cells(compared: Compared, mark: tuple[str, ...]) -> list[Cell]:
    cell = compared.number
    published = Cell(number(cell.delta, True), mark) if cell.delta is not None else Cell(MISSING, (cell.delta_reason,))
    return [
        published,
        _ours(compared.our_delta, compared, signed=True),
        _difference(compared.delta),
        _verdict(compared.delta),
    ]


def _ours(values: Summary | None, compared: Compared, signed: bool) -> Cell:
    if values is not None:
        return Cell(mean_text(values, signed))
    holes = (compared.entry.holes or (compared.entry.delta_holes if signed else ())) if compared.entry else ()
    return Cell(MISSING, ("; ".join(holes),) if holes else ())


def _difference(judged: Judgement) -> Cell:
    return Cell(MISSING if judged.difference is None else number(judged.difference, True))


def _verdict(judged: Judgement) -> Cell:
    notes = (f"assumed: {'; '.join(judged.assumed)}",) if judged.assumed else ()
    return Cell(str(judged.verdict), notes + ((judged.reason,) if judged.reason else ()))


def _caption(every: list[Number], covered: list[Number], hidden: int) -> Iterable[str]:
    yield (
        "Published numbers are those of results/published/, each with where it stands; second-hand: quoted by others, "
        "as all of HeteroAKD's are; we do not have the paper."
    )
    yield (
        "Ours: mean ± sample standard deviation (ddof = 1) over the seeds, of the checkpoint that the published number "
        "is of: the last iteration, or the best validation where theirs is that or unknown. Δ against the student "
        "alone of the same seed; ± there is that of the paired differences."
    )
    yield (
        f"Verdicts: reproduced if ours is within {TOLERANCE} points; else within noise if within 95 % of what one more "
        "training would scatter, t(n−1)·s·√(1 + 1/n), on Δ t(n−1)·√(s_Δ²/n + s_method² + s_student²), since published "
        f"trainings are single and unpaired; else not reproduced; fewer than {ENOUGH} seeds allow none. Not "
        "comparable: a known mismatch, which the note names."
    )
    yield ONE_TEACHER
    yield HOLES
    yield (
        f"Not listed: {hidden} cells of published tables that are unknown to us and not run, and "
        f"{len(every) - len(covered)} published numbers on networks, data sets or methods that the suite does not have."
    )


def _missing(results: Results, pairs: list[Any], waiting: list[Compared]) -> tuple[str, ...]:
    planned = lacking(results, pairs)
    if not waiting:
        return planned
    sweeps = dict.fromkeys(compared.number.table.sweep for compared in waiting if compared.number.table.sweep)
    bare = sum(not compared.number.table.sweep for compared in waiting)
    first = f"{len(waiting)} published numbers have no run beside them" + (
        f"; {bare} are in no sweep file." if bare else "."
    )
    return (first, *dict.fromkeys([*planned[1:], *map(submit_line, sweeps)]))


def _numbers(compared: Compared) -> dict[str, Any]:
    cell, ours, delta = compared.number, compared.ours, compared.our_delta
    return {
        "source": cell.paper,
        "table": cell.table.name,
        "dataset": cell.table.dataset,
        "split": cell.table.split,
        "column": cell.column.name,
        "row": cell.row.name,
        "teacher": cell.column.teacher,
        "student": cell.column.student,
        "method": cell.row.method,
        "variant": compared.entry.variant if compared.entry else "",
        "protocol": cell.protocol,
        "protocol_inferred": cell.table.protocol_inferred,
        "selection": cell.selection,
        "kind": str(cell.kind),
        "published": cell.value,
        "n": ours.n if ours else 0,
        "ours_mean": ours and ours.mean,
        "ours_std": ours and ours.std,
        "difference": compared.absolute.difference,
        "noise": compared.absolute.noise,
        "verdict": compared.absolute.text,
        "published_delta": cell.delta,
        "our_delta_mean": delta and delta.mean,
        "our_delta_std": delta and delta.std,
        "delta_difference": compared.delta.difference,
        "delta_noise": compared.delta.noise,
        "delta_verdict": compared.delta.text,
        "reason": compared.absolute.reason,
    }
