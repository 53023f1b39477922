"""`kdseg compare`: two runs or cells, paired per seed and per image. It imports no torch."""

from __future__ import annotations

from argparse import Namespace

from benchmark.cli.input import results
from benchmark.cli.options import Commands, add_command, add_work_dir


def add_commands(commands: Commands) -> None:
    """Declare `kdseg compare`."""
    sub = add_command(
        commands,
        compare,
        "compare",
        "two runs or cells, paired per seed and per image",
        "kdseg compare kd heteroakd --work-dir work_dirs/demo",
    )
    for side in ("first", "second"):
        sub.add_argument(
            side,
            help="a run's id, a cell's key (column `cell` of the tables' CSV) or the start of one, or a method's "
            "name where one cell alone has it",
        )
    sub.add_argument("--format", choices=("terminal", "md", "csv", "tex", "html"), default="terminal")
    add_work_dir(sub)


def compare(arguments: Namespace) -> int:
    """`kdseg compare`: two runs or cells, paired per seed and per image."""
    from rich.console import Console

    from benchmark.report.tables.comparison import comparison_table
    from benchmark.report.writers import RENDERERS, to_terminal
    from benchmark.results.comparison import compare_runs

    table = comparison_table(compare_runs(results(arguments.work_dir), arguments.first, arguments.second))
    if arguments.format == "terminal":
        Console().print(to_terminal(table))
    else:
        print(RENDERERS[arguments.format](table), end="")
    return 0
