"""The main tables: one per dataset and protocol, one section per pair, one row a method setting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from benchmark.core.errors import KdsegError
from benchmark.report.tables.base import (
    LAST,
    MISSING,
    ONE_TEACHER,
    SPREAD,
    Cell,
    Section,
    Table,
    best_texts,
    delta_cell,
    few_seeds,
    lacking,
    number,
    pair_columns,
    seeds_text,
    setting,
    summary_cell,
)
from benchmark.results.bootstrap import ImageInterval, difference_interval, miou_interval
from benchmark.results.entries import Entry, PairEntries
from benchmark.results.results import Results
from benchmark.results.stats import flip_p

PER_SEED = "mIoU per seed"
OVER_IMAGES = "Δ, 95 % over images"
COLUMNS = ("Method", "mIoU (%)", PER_SEED, "Δ (points)", OVER_IMAGES, "n", "Extra parameters", "s/iteration")
SHOWN_SEEDS = 10
"""The most values per seed that a cell shows."""


@dataclass(frozen=True)
class OverImages:
    """95 % intervals over the images for a cell with one seed; `delta` is None for the student alone."""

    miou: ImageInterval
    delta: ImageInterval | None


Intervals = dict[str, OverImages | str]
"""By cell: its intervals, or why there are none."""


def main_tables(results: Results) -> list[Table]:
    """Per dataset and protocol: teacher, student alone and each method setting of every pair.

    A row whose seeds are not all there has no mean and no Δ, but shows the seeds it has.
    """
    groups = groupby(results.pairs, key=lambda pair: (pair.facts["dataset"], pair.facts["protocol"]))
    return [_table(list(pairs), results) for _, pairs in groups]


def _table(pairs: list[PairEntries], results: Results) -> Table:
    facts = pairs[0].facts
    shown = [(pair.title, setting(pair)) for pair in pairs]
    intervals = {key: value for pair in pairs for key, value in _intervals(pair, results).items()}
    over_images = any(isinstance(value, str) or value.delta for value in intervals.values())
    columns = tuple(name for name in COLUMNS if name != OVER_IMAGES or over_images)
    sections = tuple(
        Section(
            title,
            text + (_definitions(pair) if shown.count((title, text)) > 1 else ""),
            columns,
            tuple(_row(entry, pair, intervals if over_images else None) for entry in pair.entries),
        )
        for pair, (title, text) in zip(pairs, shown, strict=True)
    )
    return Table(
        name=f"main-{facts['dataset']}-{facts['protocol']}",
        title=f"mIoU on {facts['dataset']}, protocol {facts['protocol']}",
        sections=sections,
        caption=tuple(_caption(pairs, intervals)),
        data=tuple(_numbers(pair, entry, intervals) for pair in pairs for entry in pair.entries),
        missing=lacking(results, pairs),
    )


def _intervals(pair: PairEntries, results: Results) -> Intervals:
    """Of the students and methods with one seed whose areas are there."""
    intervals: Intervals = {}
    for entry in pair.entries:
        if entry.role != "teacher" and entry.miou and entry.miou.n == 1:
            try:
                over = _over_images(entry, results)
            except KdsegError as error:
                over = str(error)
            if over:
                intervals[entry.key] = over
    return intervals


def _over_images(entry: Entry, results: Results) -> OverImages | str | None:
    row = results.runs(entry)[0]
    areas = results.areas(row["id"]) if row else None
    if row is None or areas is None:
        return None
    over = miou_interval(areas.values, areas.blocks)
    if over is None:
        return "all validation images are of one block"
    student = results.student(row) if entry.delta else None
    student_areas = results.areas(student["id"]) if student else None
    return OverImages(
        over, difference_interval([(areas.values, student_areas.values)], areas.blocks) if student_areas else None
    )


def _row(entry: Entry, pair: PairEntries, intervals: Intervals | None) -> tuple[Cell, ...]:
    full = [e for e in pair.entries if e.role != "teacher" and e.seeds == pair.seeds]
    best = best_texts(e.miou.mean for e in full if e.miou)
    bold = entry in full and entry.miou is not None and number(entry.miou.mean) in best
    values = ", ".join(MISSING if value is None else number(value) for value in entry.mious[:SHOWN_SEEDS])
    per_seed = values + (", …" if len(entry.mious) > SHOWN_SEEDS else "")
    expected = "" if entry.n == len(entry.seeds) else f"/{len(entry.seeds)}"
    notes = tuple(note for note in (entry.note, entry.off) if note) + _code_notes(entry)
    if entry.role != "teacher" and entry.seeds and entry.seeds != pair.seeds:
        notes += (f"planned for {seeds_text(entry.seeds)} only; never bold",)
    return (
        Cell(entry.label, notes),
        summary_cell(entry.miou, entry.holes, bold=bold),
        Cell(per_seed if entry.seeds else MISSING),
        delta_cell(entry) if entry.delta or not entry.holes else Cell("" if entry.role != "method" else MISSING),
        *([] if intervals is None else [_interval_cell(intervals.get(entry.key))]),
        Cell(f"{entry.n}{expected}" if entry.seeds else "0"),
        Cell("") if entry.role == "teacher" else _known(entry.extra_parameters, "{:,}"),
        _known(entry.iteration_s, "{:.3f}"),
    )


def _interval_cell(over: OverImages | str | None) -> Cell:
    if isinstance(over, str):
        return Cell(MISSING, (over,))
    if over is None or over.delta is None:
        return Cell("")
    return Cell(f"{number(over.delta.low, True)} to {number(over.delta.high, True)}")


def _known(value: float | None, form: str) -> Cell:
    return Cell(MISSING if value is None else form.format(value))


def _code_notes(entry: Entry) -> tuple[str, ...]:
    changed = [commit[:-1] for commit in entry.commits if commit.endswith("+")]
    notes = ("code of unknown version",) if "unknown" in entry.commits else ()
    return (*notes, f"code with uncommitted changes (on {', '.join(changed)})") if changed else notes


def _definitions(pair: PairEntries) -> str:
    """What tells two sections apart that look the same."""
    facts = pair.facts
    teacher = f", teacher {pair.teacher_id[:8]}" if pair.teacher_id else ""
    return (
        f" · dataset {facts['dataset_hash'][:8]}, protocol {facts['protocol_hash'][:8]}, "
        f"harness {facts['harness']}{teacher}"
    )


def _caption(pairs: list[PairEntries], intervals: Intervals) -> Iterable[str]:
    entries = [entry for pair in pairs for entry in pair.entries]
    students = [entry for entry in entries if entry.role != "teacher"]
    yield LAST
    yield SPREAD
    if any(pair.teacher for pair in pairs):
        yield ONE_TEACHER
    yield from few_seeds([entry.n for entry in students if entry.n])
    blocks = sorted({over.delta.blocks for over in intervals.values() if isinstance(over, OverImages) and over.delta})
    if blocks:
        yield (
            f"{OVER_IMAGES}: where n = 1, paired bootstrap over {' or '.join(map(str, blocks))} blocks of validation "
            "images that depend on each other; it speaks of other images, not of other seeds."
        )
    below = [pair.title for pair in pairs if _teacher_is_below(pair)]
    if below:
        yield f"The teacher is below the student alone: {'; '.join(dict.fromkeys(below))}."
    yield (
        "Bold: the best mean of the students with all seeds of their pair, ties at two decimals included. n: finished "
        "runs, a/b where b were expected; then a mean or Δ would run over a hole and is not given, and –, never 0, "
        "stands for what is missing. Diverged runs are listed and enter no mean."
    )
    yield (
        "s/iteration: seconds per iteration as a single run (step, teacher's forward and waiting for data), mean over "
        "the seeds of each run's medians. Extra parameters: trainable ones that the method adds during training."
    )
    machines = sorted({machine for entry in entries for machine in entry.machines})
    if machines:
        mixed = ": seconds of different machines do not compare" if len(machines) > 1 else ""
        yield f"Trained on {'; '.join(machines)}{mixed}."
    commits = sorted({commit for entry in entries for commit in entry.commits})
    if commits:
        changed = " (+: with uncommitted changes)" if any(commit.endswith("+") for commit in commits) else ""
        yield f"Code: {', '.join(commits)}{changed}."
    if any(pair.facts["off_protocol"] for pair in pairs):
        yield "Off protocol: trained with another effective batch than the protocol's, so not comparable with it."


def _teacher_is_below(pair: PairEntries) -> bool:
    teacher = pair.entries[0] if pair.entries[0].role == "teacher" else None
    student = pair.student_entry
    return bool(teacher and student and teacher.miou and student.miou and teacher.miou.mean < student.miou.mean)


def _numbers(pair: PairEntries, entry: Entry, intervals: Intervals) -> dict[str, Any]:
    miou, delta, facts = entry.miou, entry.delta, pair.facts
    value = intervals.get(entry.key)
    over = value if isinstance(value, OverImages) else None
    apart = over and over.delta
    return {
        **pair_columns(pair),
        "cell": entry.key,
        "off_protocol": bool(facts["off_protocol"]),
        "role": entry.role,
        "method": entry.method,
        "variant": entry.variant,
        "n": entry.n,
        "expected": len(entry.seeds),
        "miou_mean": miou and miou.mean,
        "miou_std": miou and miou.std,
        "miou_low": miou and miou.low,
        "miou_high": miou and miou.high,
        "delta_mean": delta and delta.mean,
        "delta_std": delta and delta.std,
        "delta_low": delta and delta.low,
        "delta_high": delta and delta.high,
        "delta_p": delta and flip_p(delta.values),
        "miou_images_low": over and over.miou.low,
        "miou_images_high": over and over.miou.high,
        "delta_images_low": apart and apart.low,
        "delta_images_high": apart and apart.high,
        "image_blocks": over and over.miou.blocks,
        "extra_parameters": entry.extra_parameters,
        "iteration_s": entry.iteration_s,
        "commits": " ".join(entry.commits),
        "missing": "; ".join(entry.holes or entry.delta_holes),
        **{f"miou_seed_{seed}": value for seed, value in zip(entry.seeds, entry.mious, strict=True)},
    }
