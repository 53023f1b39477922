"""Published numbers beside our runs: which of them compare, what has to be assumed for it, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmark.results.entries import Entry, PairEntries
from benchmark.results.published import STUDENT, TEACHER, UNKNOWN, Number, PublishedTable
from benchmark.results.results import Results
from benchmark.results.stats import Summary, complete, summary
from benchmark.results.verdicts import Judgement, Verdict, judge, judge_delta
from benchmark.spec import definitions
from benchmark.spec.networks import network, networks


@dataclass(frozen=True)
class Compared:
    """One published number and what we have beside it; `entry` is None if that is nothing.

    Attributes:
        ours, our_delta: of the checkpoints that the published number is of (last or best validation).
    """

    number: Number
    pair: PairEntries | None
    entry: Entry | None
    ours: Summary | None
    our_delta: Summary | None
    absolute: Judgement
    delta: Judgement


def has_counterpart(number: Number) -> bool:
    """Whether the suite has dataset, networks and method of a published number."""
    known = number.column.student in networks() and number.table.dataset in definitions.names("datasets")
    return known and bool(number.row.method)


def matching_pairs(results: Results, number: Number) -> list[PairEntries]:
    """Our pairs with the number's dataset and networks; those that compare come first, then those with more runs."""
    column, table = number.column, number.table
    teacher = network(column.teacher).title if column.teacher else None
    pairs = [
        pair
        for pair in results.pairs
        if (pair.facts["dataset"], pair.facts["model"]) == (table.dataset, column.student)
        and (pair.teacher == teacher or number.row.method == STUDENT)
    ]
    return sorted(pairs, key=lambda pair: (bool(mismatch(number, pair)), -sum(entry.n for entry in pair.entries)))


def matching_entries(pair: PairEntries, number: Number) -> list[Entry]:
    """The entries of a pair that a published row is about."""
    if number.row.method == TEACHER:
        return [entry for entry in pair.entries if entry.role == TEACHER]
    if number.row.method == STUDENT:
        return [pair.student_entry] if pair.student_entry else []
    return [
        entry for entry in pair.entries if entry.method == number.row.method and entry.variant in number.row.variants
    ]


def compare(results: Results, number: Number) -> list[Compared]:
    """The number beside each of our settings that it is about; beside nothing, if there is none."""
    never = never_comparable(number)
    pairs = matching_pairs(results, number)
    candidates = [(pair, entry) for pair in pairs for entry in matching_entries(pair, number)]
    comparable = [(pair, entry) for pair, entry in candidates if not mismatch(number, pair)]
    if not candidates:
        verdict = Judgement(Verdict.NOT_COMPARABLE, reason=never) if never else _not_run(number.value)
        delta = verdict if never else _not_run(number.delta, number.delta_reason)
        return [Compared(number, None, None, None, None, verdict, delta)]
    # Where none compares, the first stands there with what keeps it from comparing.
    return [_compared(results, number, pair, entry) for pair, entry in comparable or candidates[:1]]


def never_comparable(number: Number) -> str:
    """Why no run of ours could compare with a number; empty if one could."""
    if number.table.split == "test":
        return "published on the test images"
    if number.selection == "best_test":
        return "its checkpoint was selected on the test images"
    if number.protocol not in (UNKNOWN, *definitions.names("protocols")):
        return f"published under another protocol: {number.protocol}"
    return ""


def mismatch(number: Number, pair: PairEntries) -> str:
    """The first known mismatch between a published number and a pair of ours; empty if there is none."""
    facts = pair.facts
    never = never_comparable(number)
    if never:
        return never
    if number.protocol not in (UNKNOWN, facts["protocol"]):
        return f"published under protocol {number.protocol}, ours is {facts['protocol']}"
    if facts["overrides"]:
        return "ours with " + ", ".join(f"{key}={value}" for key, value in sorted(facts["overrides"].items()))
    if facts["off_protocol"]:
        return "ours is off protocol"
    if (number.table.initial == "imagenet") != bool(facts["weights"]):
        return (
            "published with ImageNet weights, ours from scratch" if not facts["weights"] else "published from scratch"
        )
    return ""


def assumptions(number: Number, pair: PairEntries, entry: Entry) -> tuple[str, ...]:
    """What a comparison takes for granted that no source states."""
    assumed = []
    table: PublishedTable = number.table
    if table.protocol_inferred or number.protocol == UNKNOWN:
        assumed.append(f"protocol {pair.facts['protocol']}")
    recipe = definitions.protocol(pair.facts["protocol"]).recipe(network(pair.facts["model"]).family, table.dataset)
    if recipe.inferred:
        assumed.append(f"recipe of {network(pair.facts['model']).family} students")
    if number.selection == UNKNOWN:
        assumed.append("best validation")
    if entry.note:
        assumed.append(entry.note)
    return (*assumed, *number.row.assumed)


def _compared(results: Results, number: Number, pair: PairEntries, entry: Entry) -> Compared:
    reason = mismatch(number, pair)
    score = "miou_last" if number.selection == "last" else "miou_best"
    runs = results.runs(entry)
    mious = complete(entry.mious if entry.role == TEACHER else [row[score] if row else None for row in runs])
    alone = complete(_alone(results, entry, score))
    deltas = [miou - student for miou, student in zip(mious, alone, strict=True)] if mious and alone else []
    compared = Compared(
        number,
        pair,
        entry,
        summary(mious) if mious else None,
        summary(deltas) if deltas else None,
        _not_run(number.value),
        _not_run(number.delta, number.delta_reason),
    )
    if reason:
        judged = Judgement(Verdict.NOT_COMPARABLE, reason=reason)
        return replace(compared, absolute=judged, delta=judged)
    assumed = assumptions(number, pair, entry)
    if number.value is not None:
        compared = replace(
            compared, absolute=judge(mious, number.value, assumed) if mious else _hole(entry, entry.holes)
        )
    if number.delta is not None:
        gaps = entry.holes or entry.delta_holes
        judged = judge_delta(deltas, mious, alone, number.delta, assumed) if deltas else _hole(entry, gaps)
        compared = replace(compared, delta=judged)
    return compared


def _alone(results: Results, entry: Entry, score: str) -> list[float | None]:
    """The score of the student alone beside each run of a method; None where the run has no Δ."""
    if entry.role != "method":
        return []
    students = [results.student(row) if row and not row["delta_reason"] else None for row in results.runs(entry)]
    return [student[score] if student else None for student in students]


def _not_run(published: float | None, reason: str = "") -> Judgement:
    """The verdict beside no run."""
    if published is None:
        return Judgement(Verdict.NONE, reason=reason or "the published number is unknown to us")
    return Judgement(Verdict.NOT_RUN)


def _hole(entry: Entry, holes: tuple[str, ...]) -> Judgement:
    return Judgement(Verdict.NONE, reason="; ".join(holes)) if entry.n else Judgement(Verdict.NOT_RUN)
