"""`kdseg tables`: tables from records, with verdicts on what was published. It imports no torch."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from benchmark.cli.input import record_folder, results
from benchmark.cli.options import Commands, add_command, add_work_dir
from benchmark.cli.output import say_where
from benchmark.core.errors import unknown


def add_commands(commands: Commands) -> None:
    """Declare `kdseg tables`."""
    sub = add_command(
        commands,
        tables,
        "tables",
        "tables from records, with verdicts on what was published",
        "kdseg tables main ablation --work-dir work_dirs/demo --format md,tex",
    )
    sub.add_argument("name", nargs="*", help="kinds or names of tables (default: all that there are)")
    sub.add_argument(
        "--format", default="md,csv,terminal", help="of md, tex, csv, html, terminal (default: md,csv,terminal)"
    )
    sub.add_argument("--out", type=Path, help="where to write (default: tables/ in the work directory)")
    add_work_dir(sub)


def tables(arguments: Namespace) -> int:
    """`kdseg tables`: tables from records."""
    from rich.console import Console

    from benchmark.report.tables import make_tables
    from benchmark.report.writers import RENDERERS, to_terminal, write_tables

    formats = arguments.format.split(",")
    for name in formats:
        if name not in (*RENDERERS, "terminal"):
            raise unknown("format", name, (*RENDERERS, "terminal"), "--format")
    chosen = make_tables(results(arguments.work_dir), arguments.name)
    out = arguments.out or arguments.work_dir / "tables"
    written = write_tables(chosen, out, [name for name in formats if name != "terminal"])
    if "terminal" in formats:
        for table in chosen:
            Console().print(to_terminal(table))
    say_where({"tables": [str(path) for path in written], "records": [str(record_folder(arguments.work_dir))]})
    return 0
