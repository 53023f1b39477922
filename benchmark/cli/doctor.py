"""`kdseg doctor`: what this machine can do, and how to mend what is missing."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from benchmark.cli.options import Commands, add_command, add_work_dir


def add_commands(commands: Commands) -> None:
    """Declare `kdseg doctor`."""
    sub = add_command(
        commands,
        doctor,
        "doctor",
        "what this machine can do, and how to mend what is missing",
        "kdseg doctor --data-root camvid=DIR --weights-dir DIR",
    )
    sub.add_argument(
        "--data-root", nargs="+", action="extend", default=[], metavar="NAME=DIR", help="folders of datasets with files"
    )
    sub.add_argument("--weights-dir", type=Path, help="folder of weight files (default: $KDSEG_WEIGHTS)")
    sub.add_argument("--profile", help="look at a cluster too, with a small job: its profile")
    sub.add_argument("--format", choices=("table", "json"), default="table")
    add_work_dir(sub)


def doctor(arguments: Namespace) -> int:
    """`kdseg doctor`: what this machine can do; 1 if something that is needed is missing or broken."""
    from dataclasses import asdict

    from rich.console import Console

    from benchmark.doctor.machine import data_roots, examine, healthy, show, weights_folder

    roots, weights = data_roots(arguments.data_root), weights_folder(arguments.weights_dir)
    with Console(stderr=True).status("looking at this machine"):
        findings = examine(arguments.work_dir, roots, weights)
        if arguments.profile:
            from slurm.doctor import examine_profile

            findings += examine_profile(arguments.profile, arguments.work_dir)
    if arguments.format == "json":
        print(json.dumps([asdict(finding) for finding in findings], indent=1, ensure_ascii=False))
    else:
        show(findings, Console())
    return 0 if healthy(findings) else 1
