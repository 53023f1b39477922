"""The report: one HTML file with verdicts, tables, figures, holes, provenance and the reproducibility card.

Nothing in it comes from elsewhere: style, script, figures and data are in the file.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.core.errors import KdsegError
from benchmark.records.record import Record, State
from benchmark.report.card import counted, reproducibility_card
from benchmark.report.figures import KINDS as FIGURE_KINDS
from benchmark.report.figures import Figure, Sources, render
from benchmark.report.figures.base import to_csv
from benchmark.report.rerun import train_command
from benchmark.report.tables import Section, Table, make_tables
from benchmark.report.tables.base import MISSING, mean_text
from benchmark.report.writers import footnotes
from benchmark.results.entries import PairEntries
from benchmark.results.results import Results
from benchmark.results.stats import ENOUGH
from benchmark.results.verdicts import Verdict
from benchmark.spec.methods import UNDER_TEST

MOST_FIGURES = 12
"""More would make the file larger than mails and pull requests take; the others are named."""
MOST_BYTES = 300_000
"""An SVG above this goes in as PNG."""


@dataclass(frozen=True)
class ShownSection:
    """A section of a table with what it can be filtered by; `methods` has the method of each row ("": every)."""

    section: Section
    dataset: str
    pair: str
    methods: tuple[str, ...]


@dataclass(frozen=True)
class ShownTable:
    """A table with the marks of its footnotes; one without a number of ours is folded."""

    table: Table
    folded: bool
    marks: Mapping[str, str]
    sections: tuple[ShownSection, ...]


@dataclass(frozen=True)
class ShownFigure:
    """A figure as data URIs: the picture, and its numbers as CSV."""

    figure: Figure
    picture: str
    data: str
    pairs: str


@dataclass(frozen=True)
class Rerun:
    """One table cell's runs: how each was made, and the command that makes the first of them again."""

    dataset: str
    pair: str
    method: str
    label: str
    seeds: str
    ids: tuple[str, ...]
    commit: str
    machine: str
    command: str


@dataclass(frozen=True)
class Hole:
    """A run that has no result."""

    dataset: str
    pair: str
    method: str
    label: str
    seed: str
    outcome: str
    reason: str


def write_report(results: Results, records: Sequence[Record], work_dir: Path, damaged: Sequence[str] = ()) -> str:
    """The report as HTML.

    Args:
        results: of the work directory.
        records: its records; they say where the results come from.
        work_dir: where analyses for figures are.
        damaged: what is wrong with records that could not be read.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("benchmark.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tables = make_tables(results)
    figures, reasons = _figures(Sources(results, work_dir))
    pairs = [pair for pair in results.pairs if pair.teacher]
    return environment.get_template("report.html.j2").render(
        verdicts=_verdicts(tables),
        statements=[_statement(pair) for pair in pairs],
        summary=_summary(records, results, damaged),
        tables=_tables(tables, results),
        figures=figures,
        not_made=reasons,
        holes=_holes(results),
        damaged=damaged,
        reruns=_reruns(results, {record.id: record for record in records}),
        card=reproducibility_card(records),
        datasets=sorted({str(row["dataset"]) for row in results.rows.values()}),
        pairs=list(dict.fromkeys(pair.title for pair in pairs)),
        methods=list(dict.fromkeys(entry.method for pair in pairs for entry in pair.entries if entry.method)),
    )


def _verdicts(tables: Iterable[Table]) -> list[tuple[str, int, int]]:
    """Verdict, how many published numbers have it on the absolute mIoU, and how many on Δ."""
    rows = [row for table in tables if table.name == "reproduction" for row in table.data]
    absolute, delta = (Counter(row[name].partition(",")[0] for row in rows) for name in ("verdict", "delta_verdict"))
    return [(str(verdict), absolute[verdict], delta[verdict]) for verdict in Verdict if verdict != MISSING]


def _statement(pair: PairEntries) -> str:
    """What can be said of a pair in a sentence or two, and no more than its seeds allow."""
    heading = f"{pair.title} ({pair.facts['dataset']}, protocol {pair.facts['protocol']}): "
    known = [(entry.delta, entry.label) for entry in pair.entries if entry.delta]
    if not known:
        return heading + "no method has finished beside its student alone."
    best, by = max(known, key=lambda item: item[0].mean)
    tested = [entry for entry in pair.entries if entry.method == UNDER_TEST]
    default = next((entry for entry in tested if ":" not in entry.label and "(" not in entry.label), None)
    text = f"the largest Δ is {mean_text(best, True)}, by {by}"
    if default and default.delta:
        text += f"; {default.label} has {mean_text(default.delta, True)}"
        controls = [(entry.delta, entry.label.partition(": control, ")[2]) for entry in tested if entry.delta]
        texts = [f"{mean_text(delta, True)} ({control})" for delta, control in controls if control]
        text += f", its controls {' and '.join(texts)}" if texts else ", without its controls"
    elif default:
        text += f"; {default.label} has no Δ ({'; '.join(default.holes or default.delta_holes)})"
    fewest = min(delta.n for delta, _ in known)
    return f"{heading}{text}. " + (
        f"With n = {fewest} no conclusion can be drawn." if fewest < ENOUGH else f"Every Δ is over n ≥ {fewest} seeds."
    )


def _summary(records: Sequence[Record], results: Results, damaged: Sequence[str]) -> str:
    outcomes = counted(str(row["outcome"]) for row in results.rows.values())
    commits = {record.provenance.commit for record in records}
    dirty = sum(record.provenance.dirty for record in records)
    lost = f" and {len(damaged)} that cannot be read" if damaged else ""
    versions = "1 version" if len(commits) == 1 else f"{len(commits)} versions"
    return (
        f"{len(records)} records{lost}; all runs known: {outcomes}. Made by {versions} of the code, "
        f"{dirty} of the runs with uncommitted changes."
    )


def _tables(tables: Iterable[Table], results: Results) -> list[ShownTable]:
    labels = {entry.label: entry.method for pair in results.pairs for entry in pair.entries if entry.role == "method"}
    titles = sorted({pair.title for pair in results.pairs}, key=len, reverse=True)
    datasets = {str(row["dataset"]) for row in results.rows.values()}
    shown = []
    for table in tables:
        sections = []
        for section in table.sections:
            where = f"{section.title} {section.setting}"
            pair = next((title for title in titles if title in section.title), "")
            methods = tuple(labels.get(row[0].text, "") for row in section.rows)
            sections.append(ShownSection(section, _dataset(table, where, datasets), pair, methods))
        folded = not any(row.get("n", 1) for row in table.data)
        shown.append(ShownTable(table, folded, footnotes(table), tuple(sections)))
    return shown


def _dataset(table: Table, where: str, datasets: Iterable[str]) -> str:
    """The one data set that a section is about; empty: several, or none of ours."""
    of_table = {row["dataset"] for row in table.data if row.get("dataset")}
    if len(of_table) == 1:
        return str(of_table.pop())
    named = [name for name in datasets if re.search(rf"\b{re.escape(name)}\b", where)]
    return named[0] if len(named) == 1 else ""


def _figures(sources: Sources) -> tuple[list[ShownFigure], list[str]]:
    """Figures, and what is said of those that are not there."""
    figures: list[Figure] = []
    reasons = []
    for make in FIGURE_KINDS.values():
        try:
            figures += make(sources)
        except KdsegError as error:
            reasons.append(str(error))
    # One of each kind first, so that no kind is crowded out by the pairs of another.
    kinds = [figure.title for figure in figures]
    order = sorted(range(len(figures)), key=lambda index: kinds[:index].count(kinds[index]))[:MOST_FIGURES]
    left = len(figures) - len(order)
    if left:
        reasons.append(f"{left} more figures are left out here to keep this file small; `kdseg figures` makes them all")
    return [_shown(figures[index]) for index in sorted(order)], reasons


def _shown(figure: Figure) -> ShownFigure:
    svg = b"" if figure.pictures else render(figure, "svg")
    small = 0 < len(svg) <= MOST_BYTES
    content, kind = (svg, "image/svg+xml") if small else (render(figure, "png"), "image/png")
    return ShownFigure(
        figure, _uri(content, kind), _uri(to_csv(figure.data).encode(), "text/csv"), figure.facts["pair"]
    )


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _holes(results: Results) -> list[Hole]:
    return [
        Hole(
            dataset=row["dataset"],
            pair=_pair(row),
            method=row["method"],
            label=row["variant"],
            seed="" if row["seed"] is None or row["seed"] != row["seed"] else str(row["seed"]),
            outcome=row["outcome"],
            reason=row["reason"] or "",
        )
        for row in results.rows.values()
        if row["outcome"] != State.DONE
    ] + [
        Hole(
            dataset=pair.facts["dataset"],
            pair=pair.title,
            method=entry.method,
            label=entry.label,
            seed=str(seed),
            outcome="missing",
            reason="no record, but other methods of the pair have this seed",
        )
        for pair in results.pairs
        for entry in pair.entries
        for seed, run in zip(entry.seeds, entry.ids, strict=True)
        if run is None and entry.role != "teacher"
    ]


def _reruns(results: Results, records: Mapping[str, Record]) -> list[Rerun]:
    """One line a cell; a student alone that several pairs share is there once."""
    cells: dict[str, list[Record]] = {}
    for record_id, row in results.rows.items():
        if record_id in records:
            cells.setdefault(row["cell_key"], []).append(records[record_id])
    reruns = []
    for runs in cells.values():
        runs.sort(key=lambda record: record.inputs.seed)
        first, row = runs[0], results.rows[runs[0].id]
        origins = [record.provenance for record in runs]
        commits = sorted({o.commit[:10] + ("+" if o.dirty else "") for o in origins})
        machines = sorted({o.processor if o.device == "cpu" else o.device for o in origins})
        reruns.append(
            Rerun(
                dataset=row["dataset"],
                pair=_pair(row),
                method=row["method"],
                label=row["variant"],
                seeds=", ".join(str(record.inputs.seed) for record in runs),
                ids=tuple(r.id for r in runs),
                commit=", ".join(commits),
                machine=", ".join(machines),
                command=train_command(first.inputs),
            )
        )
    return sorted(reruns, key=lambda rerun: (rerun.dataset, rerun.pair, rerun.method, rerun.label))


def _pair(row: Mapping[str, Any]) -> str:
    return f"{row['teacher']} → {row['student']}" if row["teacher"] else str(row["student"])
