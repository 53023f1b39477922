"""`kdseg figures`: figures from records. It imports no torch."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from benchmark.cli.input import results
from benchmark.cli.options import Commands, add_command, add_work_dir
from benchmark.cli.output import say_where
from benchmark.core.errors import KdsegError, unknown


def add_commands(commands: Commands) -> None:
    """Declare `kdseg figures`."""
    sub = add_command(
        commands, figures, "figures", "figures from records", "kdseg figures --fig 6 --work-dir work_dirs/demo"
    )
    sub.add_argument(
        "--fig",
        nargs="+",
        default=[],
        metavar="NAME",
        help="of 6 (mIoU against hyper-parameters), classes, cost, "
        "curves, cka, panels (default: all for which there are data)",
    )
    sub.add_argument("--out", type=Path, help="where to write (default: figures/ in the work directory)")
    add_work_dir(sub)


def figures(arguments: Namespace) -> int:
    """`kdseg figures`: figures from records and analyses; names those that could not be made, and why."""
    from benchmark.report.figures import KINDS, Sources, make_figures, write

    for kind in arguments.fig:
        if kind not in KINDS:
            raise unknown("figure", kind, KINDS, "--fig")
    result = make_figures(Sources(results(arguments.work_dir), arguments.work_dir), arguments.fig)
    if not result.figures or (arguments.fig and result.reasons):
        raise KdsegError("; ".join(result.reasons.values()))
    written = write(result.figures, arguments.out or arguments.work_dir / "figures")
    for reason in result.reasons.values():
        print(f"not made: {reason}", file=sys.stderr)
    say_where({"figures": [str(path) for path in written]})
    return 0
