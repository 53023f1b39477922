"""Tables as data: rows of text with footnotes, and the numbers behind them. `benchmark.render` writes them down."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from benchmark.cells import Entry, PairEntries, pairs
from benchmark.frame import with_delta, with_missing
from benchmark.runs import Manifest
from benchmark.statistics import Summary, sign_flip_p

if TYPE_CHECKING:
    import pandas as pd

MISSING = "–"
ENOUGH = 3
"""With fewer seeds than this, no conclusion is drawn."""

PER_SEED = "mIoU per seed"
COLUMNS = ("Method", "mIoU (%)", PER_SEED, "Δ (points)", "n", "Extra parameters", "s/iteration")


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
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Table:
    """A table; `name` is its file name, `caption` its sentences, `data` its rows' numbers in full precision."""

    name: str
    title: str
    columns: tuple[str, ...]
    sections: tuple[Section, ...]
    caption: tuple[str, ...]
    data: tuple[dict[str, Any], ...]


def main_tables(
    frame: pd.DataFrame, manifests: Iterable[Manifest] = (), reason: Callable[[str], str] | None = None
) -> list[Table]:
    """One table per dataset and protocol, one section per pair: teacher, student alone, each method setting.

    A row whose seeds are not all there has no mean and no Δ, but shows the seeds it has.

    Args:
        frame: of `records_frame`.
        manifests: sweeps whose runs and skips have a place even without a record.
        reason: why the run with an id has no record.
    """
    manifests = list(manifests)
    found = pairs(with_delta(with_missing(frame, manifests, reason)), planned=bool(manifests))
    return [
        _table(list(group))
        for _, group in groupby(found, key=lambda pair: (pair.facts["dataset"], pair.facts["protocol"]))
    ]


def number(value: float, signed: bool = False) -> str:
    """A score with two decimals and, if `signed`, its sign; zero has none, and minus is a minus sign."""
    text = f"{value:+.2f}" if signed else f"{value:.2f}"
    return text.lstrip("+-") if not float(text) else text.replace("-", "−")


def mean_text(values: Summary, signed: bool = False) -> str:
    """`mean ± sample standard deviation`, or the value itself where there is one."""
    spread = f" ± {values.std:.2f}" if values.n > 1 else ""
    return number(values.mean, signed) + spread


def _table(found: list[PairEntries]) -> Table:
    facts = found[0].facts
    shown = [(pair.title, _setting(pair)) for pair in found]
    sections = tuple(
        Section(title, setting + (_definitions(pair) if shown.count((title, setting)) > 1 else ""), _rows(pair))
        for pair, (title, setting) in zip(found, shown, strict=True)
    )
    return Table(
        name=f"main-{facts['dataset']}-{facts['protocol']}",
        title=f"mIoU on {facts['dataset']}, protocol {facts['protocol']}",
        columns=COLUMNS,
        sections=sections,
        caption=tuple(_caption(found)),
        data=tuple(_numbers(pair, entry) for pair in found for entry in pair.entries),
    )


def _rows(pair: PairEntries) -> tuple[tuple[Cell, ...], ...]:
    full = [e for e in pair.entries if e.role != "teacher" and e.seeds == pair.seeds and e.miou]
    # What reads as equal is a tie.
    best = max((number(entry.miou.mean) for entry in full), key=float, default=None)
    bold = {entry.key for entry in full if len(full) > 1 and number(entry.miou.mean) == best}
    return tuple(_row(entry, pair, entry.role != "teacher" and entry.key in bold) for entry in pair.entries)


def _row(entry: Entry, pair: PairEntries, bold: bool) -> tuple[Cell, ...]:
    miou, delta = entry.miou, entry.delta
    per_seed = ", ".join(MISSING if value is None else number(value) for value in entry.mious)
    expected = "" if entry.n == len(entry.seeds) else f"/{len(entry.seeds)}"
    notes = ((entry.note,) if entry.note else ()) + _code_notes(entry)
    if entry.role != "teacher" and entry.seeds and entry.seeds != pair.seeds:
        notes += (f"planned for {_seeds(entry.seeds)} only; never bold",)
    reason = ("; ".join(entry.holes),) if entry.holes else ()
    no_delta = () if reason else ("no Δ: " + "; ".join(entry.delta_holes),)
    return (
        Cell(entry.label, notes),
        Cell(mean_text(miou), bold=bold) if miou else Cell(MISSING, reason),
        Cell(per_seed if entry.seeds else MISSING),
        Cell("") if entry.role != "method" else Cell(mean_text(delta, True)) if delta else Cell(MISSING, no_delta),
        Cell(f"{entry.n}{expected}" if entry.seeds else "0"),
        Cell("") if entry.role == "teacher" else _known(entry.extra_parameters, "{:,}"),
        _known(entry.iteration_s, "{:.3f}"),
    )


def _known(value: float | None, form: str) -> Cell:
    return Cell(MISSING if value is None else form.format(value))


def _code_notes(entry: Entry) -> tuple[str, ...]:
    changed = [commit[:-1] for commit in entry.commits if commit.endswith("+")]
    notes = ("code of unknown version",) if "unknown" in entry.commits else ()
    return (*notes, f"code with uncommitted changes (on {', '.join(changed)})") if changed else notes


def _setting(pair: PairEntries) -> str:
    facts = pair.facts
    parts = [_seeds(pair.seeds), facts["precision"]]
    parts.append(f"initial weights {facts['weights'][:8]}" if facts["weights"] else "random initial weights")
    if pair.heterogeneous is not None:
        parts.append("heterogeneous" if pair.heterogeneous else "homogeneous")
    if facts["overrides"]:
        parts.append("with " + ", ".join(f"{key}={value}" for key, value in sorted(facts["overrides"].items())))
    return " · ".join(parts + (["off protocol"] if facts["off_protocol"] else []))


def _definitions(pair: PairEntries) -> str:
    """What tells two sections apart that look the same."""
    facts = pair.facts
    teacher = f", teacher {pair.teacher_id[:8]}" if pair.teacher_id else ""
    return (
        f" · dataset {facts['dataset_hash'][:8]}, protocol {facts['protocol_hash'][:8]}, "
        f"harness {facts['harness']}{teacher}"
    )


def _seeds(seeds: tuple[int, ...]) -> str:
    return f"seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}" if seeds else "no seeds"


def _caption(found: list[PairEntries]) -> Iterable[str]:
    entries = [entry for pair in found for entry in pair.entries]
    students = [entry for entry in entries if entry.role != "teacher"]
    counts = [entry.n for entry in students if entry.n]
    yield (
        "mIoU of the last iteration on the validation images, in percent, by mmseg's convention: a class is left out "
        "of the mean only if its union is empty."
    )
    yield (
        "± after an mIoU is the sample standard deviation (ddof = 1) over the n seeds; ± after a Δ is that of the n "
        "paired differences. Δ: mIoU minus that of the student alone with the same seed."
    )
    if any(pair.teacher for pair in found):
        yield "Each pair has one teacher, so no ± holds any variance between teachers."
    if min(counts, default=0) < ENOUGH:
        every = "no row has as many" if max(counts, default=0) < ENOUGH else "rows with fewer show single trainings"
        yield f"No conclusion can be drawn from fewer than {ENOUGH} seeds: {every}."
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
    if any(pair.facts["off_protocol"] for pair in found):
        yield "Off protocol: trained with another effective batch than the protocol's, so not comparable with it."


def _numbers(pair: PairEntries, entry: Entry) -> dict[str, Any]:
    miou, delta, facts = entry.miou, entry.delta, pair.facts
    return {
        "dataset": facts["dataset"],
        "protocol": facts["protocol"],
        "teacher": pair.teacher,
        "student": pair.student,
        "setting": facts["setting_key"],
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
        "delta_p": delta and sign_flip_p(delta.values),
        "extra_parameters": entry.extra_parameters,
        "iteration_s": entry.iteration_s,
        "commits": " ".join(entry.commits),
        "missing": "; ".join(entry.holes or entry.delta_holes),
        **{f"miou_seed_{seed}": value for seed, value in zip(entry.seeds, entry.mious, strict=True)},
    }
