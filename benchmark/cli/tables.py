"""Commands that read what runs left: `tables`, `compare`, `figures`, `collect`, `records`. They import no torch."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from benchmark.cli.output import say_where
from benchmark.core.errors import KdsegError, unknown
from benchmark.records.record import records, records_and_damage
from benchmark.records.run_directory import RunDirectory, manifests

if TYPE_CHECKING:
    from benchmark.records.record import Record
    from benchmark.results.results import Results


def tables(arguments: Namespace) -> int:
    """`kdseg tables`: tables from records."""
    from benchmark.report.tables import make_tables
    from benchmark.report.writers import RENDERERS, to_terminal, write_tables

    formats = arguments.format.split(",")
    for name in formats:
        if name not in (*RENDERERS, "terminal"):
            raise unknown("format", name, (*RENDERERS, "terminal"), "--format")
    made = make_tables(results(arguments.work_dir), arguments.name)
    out = arguments.out or arguments.work_dir / "tables"
    written = write_tables(made, out, [name for name in formats if name != "terminal"])
    if "terminal" in formats:
        for table in made:
            Console().print(to_terminal(table))
    say_where({"tables": [str(path) for path in written], "records": [str(_record_folder(arguments.work_dir))]})
    return 0


def compare(arguments: Namespace) -> int:
    """`kdseg compare`: two runs or cells, paired per seed and per image."""
    from benchmark.report.tables.comparison import comparison_table
    from benchmark.report.writers import RENDERERS, to_terminal
    from benchmark.results.comparison import compare_runs

    made = comparison_table(compare_runs(results(arguments.work_dir), arguments.first, arguments.second))
    if arguments.format == "terminal":
        Console().print(to_terminal(made))
    else:
        print(RENDERERS[arguments.format](made), end="")
    return 0


def collect(arguments: Namespace) -> int:
    """`kdseg collect`: all runs as one CSV with a data dictionary."""
    from benchmark.results.dictionary import write_collection

    file = arguments.out or arguments.work_dir / "runs.csv"
    say_where({"collected": write_collection(results(arguments.work_dir), file)})
    return 0


def move_records(arguments: Namespace) -> int:
    """`kdseg records`: to and from other machines; 1 if something was left out."""
    from benchmark.records.archive import export_records, import_records

    work_dir, file = arguments.work_dir, arguments.file
    if arguments.action == "export":
        folders = [path.parent for path in _record_folder(work_dir).glob("*/record.json")]
        faults = export_records(folders, (work_dir / "sweeps").glob("*.json"), file, arguments.students)
        print(f"{len(folders) - len(faults)} records: {file}")
    else:
        folder = _record_folder(work_dir) if any(work_dir.glob("*/record.json")) else work_dir / "runs"
        made = import_records(file, lambda run_id: folder / run_id, work_dir / "sweeps")
        faults = made.refused
        print(f"{len(made.new)} new records, {len(made.known)} were there already: {folder}")
    for fault in faults:
        print(f"left out: {fault}", file=sys.stderr)
    return 1 if faults else 0


def report(arguments: Namespace) -> int:
    """`kdseg report`: everything in one HTML file."""
    from benchmark.core.files import make_folder, write_bytes
    from benchmark.report.html import write_report

    work_dir = arguments.work_dir
    found, damaged = records_and_damage(work_dir)
    if not found:
        raise _no_records(work_dir)
    file = arguments.output or work_dir / "report.html"
    text = write_report(results(work_dir, found), found, work_dir, damaged)
    make_folder(file.parent)
    write_bytes(file, text.encode())
    say_where({"report": [str(file)]})
    return 0


def results(work_dir: Path, found: Sequence[Record] | None = None) -> Results:
    """All that is known of the runs in a work directory, or in a folder of records (`found`: its records).

    Raises:
        KdsegError: it holds no records.
    """
    from benchmark.results.results import Results

    folder = _record_folder(work_dir)
    return Results.of(
        _records(work_dir) if found is None else found,
        manifests(work_dir).values(),
        _reason(work_dir),
        lambda run_id: folder / run_id / "areas.npz",
    )


def figures(arguments: Namespace) -> int:
    """`kdseg figures`: figures from records and analyses; names those that could not be made, and why."""
    from benchmark.report.figures import KINDS, Sources, make_figures, write

    for kind in arguments.fig:
        if kind not in KINDS:
            raise unknown("figure", kind, KINDS, "--fig")
    made = make_figures(Sources(results(arguments.work_dir), arguments.work_dir), arguments.fig)
    if not made.figures or (arguments.fig and made.reasons):
        raise KdsegError("; ".join(made.reasons.values()))
    written = write(made.figures, arguments.out or arguments.work_dir / "figures")
    for reason in made.reasons.values():
        print(f"not made: {reason}", file=sys.stderr)
    say_where({"figures": [str(path) for path in written]})
    return 0


def _reason(work_dir: Path) -> Callable[[str], str]:
    """Why a run has no result, for the footnote of a hole."""

    def reason(run_id: str) -> str:
        now = RunDirectory(work_dir, run_id).status()
        if now is None:
            return "not run"
        return f"{now.state} at iteration {now.iteration} of {now.iterations}" + (
            f": {now.message}" if now.message else ""
        )

    return reason


def _record_folder(work_dir: Path) -> Path:
    """Where the run directories of a work directory are; a folder of records is one itself."""
    return work_dir / "runs" if (work_dir / "runs").is_dir() else work_dir


def _records(work_dir: Path) -> Any:
    found = records(work_dir)
    if not found:
        raise _no_records(work_dir)
    return found


def _no_records(work_dir: Path) -> KdsegError:
    return KdsegError(f"{work_dir}: holds no records; run a sweep first, or pass --work-dir")
