"""The ablation of HeteroAKD: without each of its parts, and the two controls that no gain is credited before."""

from __future__ import annotations

from collections.abc import Iterable
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
    delta_cell,
    few_seeds,
    hole,
    lacking,
    number,
    pair_columns,
    place,
    submit_line,
    summary_cell,
)
from benchmark.results.entries import Entry, PairEntries
from benchmark.results.published import publication
from benchmark.results.results import Results
from benchmark.results.stats import Summary, summary
from benchmark.spec.methods import UNDER_TEST

SUPERVISION = "HeteroAKD: control, projector supervision only"
WITH_KD = "HeteroAKD: control, supervision + KD"
ROWS = ("HeteroAKD", "HeteroAKD: without KMM", "HeteroAKD: without KEM", WITH_KD, SUPERVISION)
COLUMNS = ("Method", "mIoU (%)", "Δ to student", "Δ to supervision only", "Δ to supervision + KD", "n")
SWEEP = "ablation"
"""The sweep file with the paper's pairs."""
ADD = (
    "No sweep file has these pairs' ablation: add {name: heteroakd, kmm: false} and {name: heteroakd, kem: false} to "
    "the methods of theirs."
)


def ablation_tables(results: Results) -> list[Table]:
    """One table, a section per pair that HeteroAKD was trained on; rows that were not trained are holes."""
    pairs = [pair for pair in results.pairs if any(entry.method == UNDER_TEST for entry in pair.entries)]
    if not pairs:
        return []
    entries = [{entry.variant: entry for entry in pair.entries if entry.method == UNDER_TEST} for pair in pairs]
    counts = [entry.n for mine in entries for entry in mine.values() if entry.variant in ROWS]
    missing = lacking(results, pairs)
    holes = sum(variant not in mine for mine in entries for variant in ROWS)
    if holes:
        places = {(table.dataset, table.protocol) for table in publication(UNDER_TEST).tables}
        paper = any((pair.facts["dataset"], pair.facts["protocol"]) in places for pair in pairs)
        commands = [*missing[1:], submit_line(SWEEP)] if paper else missing[1:]
        missing = (f"{holes} rows have no run." + ("" if paper else f" {ADD}"), *dict.fromkeys(commands))
    return [
        Table(
            name="ablation",
            title="Ablation of HeteroAKD, with controls",
            sections=tuple(map(_section, pairs, entries)),
            caption=tuple(_caption(counts)),
            data=tuple(row for pair, mine in zip(pairs, entries, strict=True) for row in _numbers(pair, mine)),
            missing=missing,
        )
    ]


def _section(pair: PairEntries, mine: dict[str, Entry]) -> Section:
    student = pair.student_entry
    rows: list[tuple[Cell, ...]] = [
        (
            Cell("Student alone"),
            summary_cell(student.miou, student.holes) if student else hole("no record"),
            Cell(""),
            Cell(""),
            Cell(""),
            Cell(str(student.n if student else 0)),
        )
    ]
    mious = [mine[variant].miou for variant in ROWS if variant in mine]
    best = best_texts(miou.mean for miou in mious if miou)
    for variant in ROWS:
        entry = mine.get(variant)
        if entry is None:
            rows.append((Cell(variant), *(hole("not run") for _ in COLUMNS[1:-1]), Cell("0")))
            continue
        bold = entry.miou is not None and number(entry.miou.mean) in best
        rows.append(
            (
                Cell(variant),
                summary_cell(entry.miou, entry.holes, bold=bold),
                delta_cell(entry),
                _apart(entry, mine.get(SUPERVISION)),
                _apart(entry, mine.get(WITH_KD)),
                Cell(str(entry.n)),
            )
        )
    return Section(pair.title, place(pair), COLUMNS, tuple(rows))


def _apart(entry: Entry, control: Entry | None) -> Cell:
    """Paired difference to a control."""
    if control is entry:
        return Cell("")
    if control is None:
        return hole("the control was not run")
    apart = paired(entry, control)
    return summary_cell(apart, [*entry.holes, *control.holes] or ["other seeds"], signed=True)


def paired(entry: Entry, other: Entry) -> Summary | None:
    """Of the differences in mIoU of the same seeds; None if one has a hole, or the two have not the same seeds."""
    if entry.miou is None or other.miou is None or entry.seeds != other.seeds:
        return None
    return summary(first - second for first, second in zip(entry.miou.values, other.miou.values, strict=True))


def _caption(counts: list[int]) -> Iterable[str]:
    yield LAST
    yield SPREAD
    yield (
        "HeteroAKD's target uses labels and its projectors need supervision, so no gain is credited to it before the "
        "student with that supervision alone (λ1 = λ2 = 0). Δ to a control: paired by seed, in points. Without KMM: "
        "the target is the teacher's projection; without KEM: all classes weigh the same. The paper says that both "
        "help and gives us no number."
    )
    yield ONE_TEACHER
    yield from few_seeds([count for count in counts if count])
    yield f"Bold: the best mean of each pair's rows of HeteroAKD, ties at two decimals included. {HOLES}"


def _numbers(pair: PairEntries, mine: dict[str, Entry]) -> Iterable[dict[str, Any]]:
    for variant in ROWS:
        entry = mine.get(variant)
        miou, delta = (entry.miou, entry.delta) if entry else (None, None)
        controls = {
            name: paired(entry, mine[key]) if entry and key in mine else None
            for name, key in (("supervision", SUPERVISION), ("supervision_kd", WITH_KD))
        }
        yield {
            **pair_columns(pair),
            "variant": variant,
            "n": entry.n if entry else 0,
            "miou_mean": miou and miou.mean,
            "miou_std": miou and miou.std,
            "delta_mean": delta and delta.mean,
            "delta_std": delta and delta.std,
            **{f"to_{name}_mean": apart and apart.mean for name, apart in controls.items()},
            **{f"to_{name}_std": apart and apart.std for name, apart in controls.items()},
        }
