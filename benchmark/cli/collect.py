"""`kdseg collect`: all runs as one CSV. It imports no torch."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from benchmark.cli.input import results
from benchmark.cli.options import Commands, add_command, add_work_dir
from benchmark.cli.output import say_where


def add_commands(commands: Commands) -> None:
    """Declare `kdseg collect`."""
    sub = add_command(
        commands,
        collect,
        "collect",
        "all runs as one CSV, with a data dictionary beside it",
        "kdseg collect --work-dir work_dirs/demo --out runs.csv",
    )
    sub.add_argument("--out", type=Path, help="the CSV to write (default: runs.csv in the work directory)")
    add_work_dir(sub)


def collect(arguments: Namespace) -> int:
    """`kdseg collect`: all runs as one CSV with a data dictionary."""
    from benchmark.results.dictionary import write_collection

    file = arguments.out or arguments.work_dir / "runs.csv"
    say_where({"collected": write_collection(results(arguments.work_dir), file)})
    return 0
