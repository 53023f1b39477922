"""What a table is: rows of text with footnotes, and the numbers behind them. `report.writers` writes it down."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.results.entries import Entry, PairEntries
from benchmark.results.results import Results
from benchmark.results.stats import ENOUGH, Summary

MISSING = "–"

ONE_TEACHER = "Each pair has one teacher, so no ± holds any variance between teachers."
SPREAD = (
    "± after an mIoU is the sample standard deviation (ddof = 1) over the n seeds; ± after a Δ is that of the n paired "
    "differences. Δ: mIoU minus that of the student alone with the same seed, in points."
)
LAST = (
    "mIoU of the last iteration on the validation images, in percent, by mmseg's convention: a class is left out "
    "of the mean only if its union is empty."
)
HOLES = f"{MISSING}, never 0, stands for what is missing; no mean runs over a hole."


@dataclass(frozen=True)
class Cell:
    """A text with the footnotes it carries; empty where the column says nothing about the row."""

    text: str
    notes: tuple[str, ...] = ()
    bold: bool = False


@dataclass(frozen=True)
class Section:
    """Rows that belong together, under a title and a line on their setting."""

    title: str
    setting: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: its file name.
        caption: its sentences.
        data: its rows' numbers in full precision.
        missing: how many runs are missing for it and why, and the command that makes them; empty: none is known to be.
    """

    name: str
    title: str
    sections: tuple[Section, ...]
    caption: tuple[str, ...]
    data: tuple[dict[str, Any], ...]
    missing: tuple[str, ...] = ()


def pair_columns(pair: PairEntries) -> dict[str, Any]:
    """The first columns of the numbers behind a table: which pair, under which protocol and setting."""
    return {
        "dataset": pair.facts["dataset"],
        "protocol": pair.facts["protocol"],
        "teacher": pair.teacher,
        "student": pair.student,
        "setting": pair.facts["setting_key"],
    }


def number(value: float, signed: bool = False) -> str:
    """A score with two decimals and, if `signed`, its sign; zero has none, and minus is a minus sign."""
    text = f"{value:+.2f}" if signed else f"{value:.2f}"
    return text.lstrip("+-") if not float(text) else text.replace("-", "−")


def mean_text(values: Summary, signed: bool = False) -> str:
    """`mean ± sample standard deviation`, or the value itself where there is one."""
    spread = f" ± {values.std:.2f}" if values.n > 1 else ""
    return number(values.mean, signed) + spread


def hole(reason: str) -> Cell:
    """The cell of something that is missing, and why."""
    return Cell(MISSING, (reason,) if reason else ())


def summary_cell(values: Summary | None, reasons: Sequence[str], signed: bool = False, bold: bool = False) -> Cell:
    """A mean with its spread, or a hole with its reasons."""
    return Cell(mean_text(values, signed), bold=bold) if values else hole("; ".join(dict.fromkeys(reasons)))


def delta_cell(entry: Entry) -> Cell:
    """Mean Δ of a method; empty for teacher and student alone."""
    if entry.role != "method":
        return Cell("")
    return summary_cell(entry.delta, entry.holes or [f"no Δ: {'; '.join(entry.delta_holes)}"], signed=True)


def best_texts(values: Iterable[float]) -> set[str]:
    """The texts of the best of several means: what reads as equal is a tie."""
    texts = [number(value) for value in values]
    return {text for text in texts if float(text) == max(map(float, texts))} if len(texts) > 1 else set()


def setting(pair: PairEntries) -> str:
    """Seeds, precision, initial weights, kind of pair and changes of the recipe, in a line."""
    facts = pair.facts
    parts = [seeds_text(pair.seeds), facts["precision"]]
    parts.append(f"initial weights {facts['weights'][:8]}" if facts["weights"] else "random initial weights")
    if pair.heterogeneous is not None:
        parts.append("heterogeneous" if pair.heterogeneous else "homogeneous")
    if facts["overrides"]:
        parts.append("with " + ", ".join(f"{key}={value}" for key, value in sorted(facts["overrides"].items())))
    return " · ".join(parts + (["off protocol"] if facts["off_protocol"] else []))


def place(pair: PairEntries) -> str:
    """Dataset and protocol of a pair, and its setting."""
    return f"{pair.facts['dataset']}, protocol {pair.facts['protocol']} · {setting(pair)}"


def seeds_text(seeds: tuple[int, ...]) -> str:
    """`seeds 0, 1, 2`; of many, the first and the last."""
    if not seeds:
        return "no seeds"
    shown = ", ".join(map(str, seeds)) if len(seeds) <= 10 else f"{seeds[0]} … {seeds[-1]} ({len(seeds)})"
    return f"seed {shown}" if len(seeds) == 1 else f"seeds {shown}"


def few_seeds(counts: Sequence[int]) -> list[str]:
    """The warning where entries have fewer seeds than a conclusion needs."""
    if min(counts, default=0) >= ENOUGH:
        return []
    every = "no row has as many" if max(counts, default=0) < ENOUGH else "rows with fewer show single trainings"
    return [f"No conclusion can be drawn from fewer than {ENOUGH} seeds: {every}."]


def lacking(results: Results, chosen: Sequence[PairEntries]) -> tuple[str, ...]:
    """How many expected runs of these pairs are missing, why, and the command of each sweep that makes them."""
    rows = results.missing(chosen)
    if not rows:
        return ()
    reasons = [row["reason"].split(" at iteration")[0].split(":")[0] for row in rows]
    counts = ", ".join(f"{reasons.count(reason)} {reason}" for reason in dict.fromkeys(reasons))
    ids = {row["id"] for row in rows}
    sweeps = [name for name, runs in results.sweeps.items() if ids & runs]
    return (f"{len(rows)} runs are missing ({counts}).", *map(submit_line, sweeps))


def submit_line(sweep: str) -> str:
    """The command that trains what a sweep of `slurm/sweeps/` lacks."""
    return f"kdseg submit slurm/sweeps/{sweep}.yaml --profile PROFILE"
