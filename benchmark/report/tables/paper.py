"""Tables in the form papers print them: one row a method, one column a pair, each cell mIoU and (Δ).

Rows, columns and their order come from `results/published/`; the numbers are ours, published ones in rows of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from typing import Any

from benchmark.report.tables.base import (
    HOLES,
    LAST,
    ONE_TEACHER,
    SPREAD,
    Cell,
    Section,
    Table,
    best_texts,
    few_seeds,
    hole,
    lacking,
    mean_text,
    number,
    submit_line,
)
from benchmark.results.entries import Entry, PairEntries
from benchmark.results.published import (
    STUDENT,
    TEACHER,
    Column,
    Kind,
    Number,
    PublishedRow,
    PublishedTable,
    papers,
    publication,
    table_numbers,
)
from benchmark.results.reproduction import matching_entries, matching_pairs, mismatch
from benchmark.results.results import Results
from benchmark.spec.definitions import names
from benchmark.spec.methods import UNDER_TEST
from benchmark.spec.networks import Family, network, networks

LABELS = {Family.CNN: "CNN", Family.TRANSFORMER: "Transformer"}
Found = dict[tuple[str, str], tuple[PairEntries, Entry]]
"""(column, label) -> our entry, and its pair."""


def paper_tables(results: Results) -> list[Table]:
    """One per table of the HeteroAKD paper: heterogeneous pairs, Transformer → CNN and CNN → Transformer."""
    return [
        _table(results, f"paper-{table.name}", table.title, [(UNDER_TEST, table)])
        for table in publication(UNDER_TEST).tables
    ]


def anchor_tables(results: Results) -> list[Table]:
    """Homogeneous pairs of the codebases that the paper builds on, one section per dataset and protocol."""
    others = [paper for paper in papers() if paper != UNDER_TEST]
    sources = [(paper, table) for paper in others for table in publication(paper).tables if _is_anchor(table)]
    return [_table(results, "anchors", "Homogeneous pairs of the codebases", sources)] if sources else []


def _is_anchor(table: PublishedTable) -> bool:
    """Whether it says what someone trained that we could train too."""
    trainable = table.split == "val" and table.dataset in names("datasets") and table.protocol in names("protocols")
    return trainable and table.kind is Kind.REPORTED and any(column.student in networks() for column in table.columns)


def _table(results: Results, name: str, title: str, sources: Sequence[tuple[str, PublishedTable]]) -> Table:
    tables = [table for _, table in sources]
    parts = [part for paper, table in sources for part in _parts(paper, table)]
    order = list(dict.fromkeys(part.group for part in parts))
    parts.sort(key=lambda part: order.index(part.group))
    sections = [_section(results, list(group)) for _, group in groupby(parts, key=lambda part: part.group)]
    # By id: a pair holds dicts, so it has no hash.
    pairs = list({id(pair): pair for _, by_cell, _ in sections for pair, _ in by_cell.values()}.values())
    holes = sum(count for *_, count in sections)
    known = lacking(results, pairs)
    missing = known
    if holes:
        sweeps = dict.fromkeys(table.sweep for table in tables if table.sweep)
        covered = {(table.dataset, table.protocol) for table in tables if table.sweep}
        bare = dict.fromkeys(
            f"{t.dataset} under {t.protocol}" for t in tables if (t.dataset, t.protocol) not in covered
        )
        first = f"{holes} cells have no run." + (f" No sweep file has {', '.join(bare)}." if bare else "")
        missing = (first, *dict.fromkeys([*known[1:], *map(submit_line, sweeps)]))
    entries = [entry for _, by_cell, _ in sections for _, entry in by_cell.values()]
    return Table(
        name=name,
        title=title,
        sections=tuple(section for section, *_ in sections),
        caption=tuple(_caption(tables, [entry.n for entry in entries if entry.n and entry.role != "teacher"])),
        data=tuple(_numbers(key, *value) for _, by_cell, _ in sections for key, value in by_cell.items()),
        missing=missing,
    )


@dataclass(frozen=True)
class PaperColumn:
    """A column of a published table whose networks we have, with its cells."""

    table: PublishedTable
    column: Column
    cells: tuple[Number, ...]
    about: str

    @property
    def group(self) -> tuple[str, str, str]:
        """What the columns of one section share."""
        return self.table.dataset, self.table.initial, self.about


def _parts(paper: str, table: PublishedTable) -> list[PaperColumn]:
    parts = []
    for column in table.columns:
        protocol = column.protocol or table.protocol
        if column.student in networks() and protocol in names("protocols"):
            student, teacher = network(column.student), network(column.teacher)
            about = f"{LABELS[teacher.family]} → {LABELS[student.family]}, protocol {protocol}"
            cells = (cell for cell in table_numbers(publication(paper), table) if cell.column is column)
            parts.append(PaperColumn(table, column, tuple(cells), about))
    return parts


def _section(results: Results, parts: list[PaperColumn]) -> tuple[Section, Found, int]:
    """The section, our entries in it, and how many cells have none."""
    table = parts[0].table
    columns = {part.column.name: part.column for part in parts}
    rows = {(row.method, row.variants): row for part in parts for row in part.table.rows if row.method}
    labels = {label: row for row in sorted(rows.values(), key=_row_order) for label in _labels(row)}
    by_cell: Found = {}
    for (label, row), column in product(labels.items(), columns.values()):
        matched = _entry(results, table, row, column, label)
        if matched:
            by_cell[column.name, label] = matched
    published: dict[tuple[Any, ...], Number] = {}
    for cell in (cell for part in parts for cell in part.cells if cell.value is not None):
        published.setdefault((cell.row.method, cell.row.variants, cell.column.name), cell)
    lines = []
    for label, row in labels.items():
        lines.append((Cell(label), *(_cell(by_cell, name, label, labels) for name in columns)))
        cells = [published.get((row.method, row.variants, name)) for name in columns]
        if label == _labels(row)[0] and any(cells):
            lines.append((Cell(f"{row.name}, published"), *map(_published_cell, cells)))
    text = f"{table.dataset} val" + (" · protocol inferred" if table.protocol_inferred else "")
    text += " · from scratch" if table.initial == "scratch" else ""
    return (
        Section(parts[0].about, text, ("Method", *columns), tuple(lines)),
        by_cell,
        len(labels) * len(columns) - len(by_cell),
    )


def _row_order(row: PublishedRow) -> int:
    """Teacher, student alone, baselines, the method under test."""
    return {TEACHER: 0, STUDENT: 1, UNDER_TEST: 3}.get(row.method, 2)


def _labels(row: PublishedRow) -> list[str]:
    return list(row.variants) or [{TEACHER: "Teacher", STUDENT: "Student alone"}[row.method]]


def _entry(
    results: Results, table: PublishedTable, row: PublishedRow, column: Column, label: str
) -> tuple[PairEntries, Entry] | None:
    """Our entry at a place of a table, of the pair that compares and has most runs."""
    cell = Number("", "", table, row, column, None, None, "")
    for pair in matching_pairs(results, cell):
        if not mismatch(cell, pair):
            for entry in matching_entries(pair, cell):
                if entry.variant == label or not row.variants:
                    return pair, entry
    return None


def _cell(by_cell: Found, column: str, label: str, labels: Iterable[str]) -> Cell:
    if (column, label) not in by_cell:
        return hole("not run")
    entry = by_cell[column, label][1]
    if entry.miou is None:
        return hole("; ".join(entry.holes))
    others = [by_cell[column, other][1] for other in labels if (column, other) in by_cell]
    means = [other.miou.mean for other in others if other.miou and other.role != "teacher"]
    delta = f" ({mean_text(entry.delta, signed=True)})" if entry.delta else ""
    bold = entry.role != "teacher" and number(entry.miou.mean) in best_texts(means)
    return Cell(mean_text(entry.miou) + delta, bold=bold)


def _published_cell(cell: Number | None) -> Cell:
    if cell is None or cell.value is None:
        return Cell("")
    delta = "" if cell.delta is None else f" ({number(cell.delta, True)})"
    return Cell(number(cell.value) + delta, () if cell.kind is Kind.REPORTED else (str(cell.kind),))


def _caption(tables: Sequence[PublishedTable], counts: Sequence[int]) -> Iterable[str]:
    yield "Each cell: mIoU in percent, and Δ to the student alone in points, in brackets. " + LAST
    yield SPREAD
    yield ONE_TEACHER
    yield from few_seeds(counts)
    yield (
        "Rows called published stand in results/published/ and are single trainings, mostly of the best validation: "
        "the table reproduction compares like with like. Bold: the best mean of a column's students, ties at two "
        "decimals included."
    )
    yield HOLES
    for note in dict.fromkeys(table.note for table in tables if table.note):
        yield f"{note[0].upper()}{note[1:].rstrip('.')}."


def _numbers(key: tuple[str, str], pair: PairEntries, entry: Entry) -> dict[str, Any]:
    miou, delta = entry.miou, entry.delta
    return {
        "dataset": pair.facts["dataset"],
        "protocol": pair.facts["protocol"],
        "column": key[0],
        "row": key[1],
        "cell": entry.key,
        "n": entry.n,
        "miou_mean": miou and miou.mean,
        "miou_std": miou and miou.std,
        "delta_mean": delta and delta.mean,
        "delta_std": delta and delta.std,
    }
