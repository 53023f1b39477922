"""`kdseg export`: a finished student as plain mmsegmentation files."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from benchmark.cli.options import Commands, add_command, add_work_dir
from benchmark.cli.output import say_where


def add_commands(commands: Commands) -> None:
    """Declare `kdseg export`."""
    sub = add_command(
        commands,
        export,
        "export",
        "a finished student as plain mmsegmentation files, a config and a checkpoint",
        "kdseg export 7c1d04a5c05bd3f1 --work-dir work_dirs/demo --out exported",
    )
    sub.add_argument("run", help="id or folder of a finished run")
    sub.add_argument("--out", type=Path, required=True, help="folder to write to")
    sub.add_argument("--best", action="store_true", help="the weights of the best validation, not the last ones")
    add_work_dir(sub)


def export(arguments: Namespace) -> int:
    """`kdseg export`: a finished student as an mmseg config and checkpoint."""
    from benchmark.deploy.export import export_student
    from benchmark.deploy.load import find_run

    config, checkpoint = export_student(find_run(arguments.run, arguments.work_dir), arguments.out, arguments.best)
    say_where({"config": [config], "checkpoint": [checkpoint]})
    return 0
