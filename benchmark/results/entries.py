"""What a table is made of: pairs of networks, and per pair one entry a method setting, with its seeds' statistics.

An entry with a hole has no mean: its seeds stand for themselves, and `holes` says what is missing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from benchmark.results.frame import SKIPPED
from benchmark.results.stats import Summary, complete, is_hole, summary
from benchmark.spec.methods import BASELINES, STUDENT, UNDER_TEST

Rows = list[dict[str, Any]]

TIMED_APART = (
    "Not all runs were timed in one job: what else the machine did then may have differed, and so may their ratios."
)


@dataclass(frozen=True)
class Entry:
    """One method setting on one pair. mIoU in percent, Δ in points, `iteration_s` in seconds as a single run.

    Attributes:
        key: the `cell_key` of its rows.
        role: `teacher`, `student` (alone) or `method`.
        seeds: those expected; `mious` and `deltas` are in their order, None where there is a hole.
        ids: of its runs, in the order of `seeds`; None where there is none.
        note: where a recipe's weights come from, if not from its authors' setting.
        holes, delta_holes: why, one text a hole; an entry that is skipped as a whole has one hole and no seeds.
        commits: of the code, with `+` if it had uncommitted changes.
        jobs: by the time that each began.
        off: of a teacher that is not as good or bad as published (`benchmark.training.teacher_check`): both mIoUs.
    """

    key: str
    role: str
    label: str
    method: str
    variant: str
    note: str | None
    version: int | None
    seeds: tuple[int, ...]
    ids: tuple[str | None, ...]
    mious: tuple[float | None, ...]
    deltas: tuple[float | None, ...]
    holes: tuple[str, ...]
    delta_holes: tuple[str, ...]
    extra_parameters: int | None
    iteration_s: float | None
    commits: tuple[str, ...]
    machines: tuple[str, ...]
    jobs: tuple[str, ...]
    off: str | None = None

    @property
    def n(self) -> int:
        """How many of its seeds have a number."""
        return sum(value is not None for value in self.mious)

    @property
    def miou(self) -> Summary | None:
        """Of mIoU over all expected seeds; None if there is a hole."""
        mious = complete(self.mious)
        return summary(mious) if mious and not self.holes else None

    @property
    def delta(self) -> Summary | None:
        """Of the paired Δ over all expected seeds; None if there is a hole, and for teacher and student."""
        deltas = complete(self.deltas)
        return summary(deltas) if self.role == "method" and deltas and not self.holes else None


@dataclass(frozen=True)
class PairEntries:
    """A pair in one setting. `facts` holds the columns that all its student's rows share."""

    teacher: str | None
    student: str
    heterogeneous: bool | None
    teacher_id: str | None
    facts: dict[str, Any]
    seeds: tuple[int, ...]
    entries: tuple[Entry, ...]

    @property
    def student_entry(self) -> Entry | None:
        """The student alone; of two versions the newer."""
        alone = [entry for entry in self.entries if entry.role == "student"]
        return max(alone, key=lambda entry: entry.version or 0, default=None)

    @property
    def timed_apart(self) -> bool:
        """Whether seconds come from several jobs, each with other work beside it."""
        jobs = {entry.jobs for entry in self.entries if entry.role == "method" and entry.jobs}
        student = self.student_entry
        return len(jobs | ({student.jobs} if student and student.jobs else set())) > 1

    @property
    def title(self) -> str:
        """`teacher → student`, or the student's name where nothing teaches it."""
        return f"{self.teacher} → {self.student}" if self.teacher else f"{self.student}, no teacher"


def pairs(rows: Rows, planned: bool) -> list[PairEntries]:
    """All pairs in the rows of a frame (with `delta`, and with missing runs if `planned`), in a stable order.

    A student alone belongs to each pair of its setting; a network that neither learns nor teaches stands alone. Where
    no plan says which seeds a cell was to have (`planned` is false), it was to have all seeds of its pair.
    """
    taught = {(row["setting_key"], row["teacher_model"], row["teacher_id"]) for row in rows if row["teacher_model"]}
    used = {setting for setting, _, _ in taught}
    teachers = {teacher for _, _, teacher in taught}
    alone = {row["setting_key"] for row in rows if row["id"] not in teachers} - used
    keys = taught | {(setting, None, None) for setting in alone}
    settings: dict[str, Rows] = {}
    for row in rows:
        settings.setdefault(row["setting_key"], []).append(row)
    by_id = {row["id"]: row for row in rows}
    entries = [_pair(settings[setting], by_id, model, source, planned) for setting, model, source in keys]
    return sorted(entries, key=_pair_order)


@cache
def variant_order(method: str, variant: str) -> tuple[Any, ...]:
    """Sort key: baselines, then methods under test; per method its default, other settings, controls and ablations."""
    base, _, recipe = method.partition("@")
    known = (*BASELINES, "", UNDER_TEST)
    return (known.index(base) if base in known else len(BASELINES), base, recipe, ": " in variant, natural(variant))


def natural(text: str) -> tuple[Any, ...]:
    """Sort key under which numbers in a text go by size."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e-?\d+)?)", text)
    # A split by one group has its matches, the numbers, at the odd places.
    return tuple(float(part) if index % 2 else part for index, part in enumerate(parts))


def _pair(
    rows: Rows,
    by_id: dict[str, dict[str, Any]],
    teacher_model: str | None,
    teacher_id: str | None,
    planned: bool,
) -> PairEntries:
    """The pair of a teacher and a student's setting, from the rows of that setting."""
    source = (teacher_model, teacher_id)
    members = [
        row for row in rows if row["teacher_model"] is None or (row["teacher_model"], row["teacher_id"]) == source
    ]
    seeds = tuple(sorted({row["seed"] for row in members if row["outcome"] != SKIPPED}))
    cells: dict[str, Rows] = {}
    for row in sorted(members, key=lambda row: (*variant_order(row["method"], row["variant"]), row["cell_key"])):
        cells.setdefault(row["cell_key"], []).append(row)
    entries = [_entry(cell, seeds if not planned else ()) for cell in cells.values()]
    taught = next((row for row in members if row["teacher_model"]), None)
    if taught:
        entries.insert(0, _teacher(taught, by_id.get(taught["teacher_id"])))
    return PairEntries(
        teacher=taught["teacher"] if taught else None,
        student=members[0]["student"],
        heterogeneous=bool(taught["heterogeneous"]) if taught else None,
        teacher_id=teacher_id,
        facts=members[0],
        seeds=seeds,
        entries=tuple(_distinct(entries)),
    )


def _entry(cell: Rows, expected: Iterable[int]) -> Entry:
    """The entry of one cell's rows; a seed of `expected` that has no row is a hole."""
    first = cell[0]
    student = first["method"] == STUDENT
    by_seed = {row["seed"]: row for row in cell if row["outcome"] != SKIPPED}
    seeds = tuple(sorted({*by_seed, *expected})) if by_seed else ()
    runs = [by_seed.get(seed) for seed in seeds]
    mious = tuple(None if row is None or row["reason"] else row["miou_last"] for row in runs)
    deltas = tuple(None if row is None or row["delta_reason"] else row["delta"] for row in runs)
    missing = {seed: (row["reason"] if row else "no record") for seed, row in zip(seeds, runs, strict=True)}
    holes = tuple(f"seed {seed}: {reason}" for seed, reason in missing.items() if reason)
    done = [row for row in cell if not math.isnan(row["miou_last"])]
    times = [row["iteration_s"] for row in done]
    return Entry(
        key=first["cell_key"],
        role="student" if student else "method",
        label="Student alone" if student else first["variant"],
        method=first["method"],
        variant=first["variant"],
        note=first["note"],
        version=None if first["outcome"] == SKIPPED else first["method_version"],
        seeds=seeds,
        ids=tuple(row["id"] if row else None for row in runs),
        mious=mious,
        deltas=deltas,
        holes=holes if by_seed else (first["reason"],),
        delta_holes=() if student else tuple(row["delta_reason"] for row in runs if row and row["delta_reason"]),
        extra_parameters=int(done[0]["extra_parameters"]) if done else None,
        iteration_s=math.fsum(times) / len(times) if times and not holes else None,
        commits=tuple(sorted({_commit(row) for row in done})),
        machines=tuple(sorted({row["processor"] if row["device"] == "cpu" else row["device"] for row in done})),
        jobs=tuple(sorted({row["started"] for row in done})),
    )


def _teacher(taught: dict[str, Any], own: dict[str, Any] | None) -> Entry:
    """The row of the teacher that `taught` learned from: its own run, or what the gate found of a checkpoint."""
    label = f"Teacher (seed {own['seed']})" if own else "Teacher"
    if own:
        entry = _entry([own], ())
    else:
        imported = taught["teacher_kind"] == "checkpoint"
        why = "a checkpoint, not evaluated here" if imported else "its run is not among the records"
        entry = _entry([taught | {"outcome": SKIPPED, "reason": f"teacher {taught['teacher_id']}: {why}"}], ())
        miou = taught["teacher_miou"]
        if not is_hole(miou):
            entry = replace(entry, seeds=(0,), ids=(None,), mious=(miou,), holes=())
            label = "Teacher (checkpoint)"
    return replace(
        entry,
        role="teacher",
        label=label,
        method="",
        variant="",
        note=None,
        deltas=(),
        delta_holes=(),
        extra_parameters=None,
        off=_off(taught),
        iteration_s=entry.iteration_s if own else None,
        commits=entry.commits if own else (),
        machines=entry.machines if own else (),
        jobs=entry.jobs if own else (),
    )


def _off(taught: dict[str, Any]) -> str | None:
    """What the gate found of a teacher that is off, as the record of one that learned from it says."""
    if taught["teacher_off"] is not True:
        return None
    return f"the teacher has mIoU {taught['teacher_miou']:.2f} here, {taught['teacher_published']:.2f} as published"


def _distinct(entries: Iterable[Entry]) -> list[Entry]:
    """The entries with labels that tell them apart: two versions of a method may both have records."""
    listed = list(entries)
    labels = [entry.label for entry in listed]
    return [
        replace(entry, label=f"{entry.label} [version {entry.version}, {entry.key[:6]}]")
        if labels.count(entry.label) > 1 and entry.version is not None
        else entry
        for entry in listed
    ]


def _commit(row: dict[str, Any]) -> str:
    return row["commit"] if row["commit"] == "unknown" else row["commit"][:10] + ("+" if row["dirty"] else "")


def _pair_order(pair: PairEntries) -> tuple[Any, ...]:
    names = (pair.facts["dataset"], pair.facts["protocol"], pair.teacher is None, pair.teacher or "", pair.student)
    return (*names, pair.facts["setting_key"], pair.teacher_id or "")
