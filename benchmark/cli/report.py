"""`kdseg report`: everything in one HTML file. It imports no torch."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from benchmark.cli.input import no_records, results
from benchmark.cli.options import Commands, add_command, add_work_dir
from benchmark.cli.output import say_where


def add_commands(commands: Commands) -> None:
    """Declare `kdseg report`."""
    sub = add_command(
        commands,
        report,
        "report",
        "one HTML file: verdict, tables, figures, holes, provenance, reproducibility card",
        "kdseg report --work-dir work_dirs/demo --output report.html",
    )
    sub.add_argument("--output", type=Path, help="file to write (default: report.html in the work directory)")
    add_work_dir(sub)


def report(arguments: Namespace) -> int:
    """`kdseg report`: everything in one HTML file."""
    from benchmark.core.files import make_folder, write_bytes
    from benchmark.records.record import records_and_damage
    from benchmark.report.html import write_report

    work_dir = arguments.work_dir
    records, damaged = records_and_damage(work_dir)
    if not records:
        raise no_records(work_dir)
    file = arguments.output or work_dir / "report.html"
    text = write_report(results(work_dir, records), records, work_dir, damaged)
    make_folder(file.parent)
    write_bytes(file, text.encode())
    say_where({"report": [str(file)]})
    return 0
