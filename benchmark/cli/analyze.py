"""`kdseg analyze`: what needs networks, written down as data that figures, plans and pages read."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from benchmark.cli.options import Commands, add_command, add_device, add_work_dir, device_of
from benchmark.cli.output import say_where


def add_commands(commands: Commands) -> None:
    """Declare `kdseg analyze`."""
    sub = add_command(
        commands,
        analyze,
        "analyze",
        "what figures need networks for, written as data files",
        "kdseg analyze cka --work-dir work_dirs/demo",
    )
    sub.add_argument(
        "what",
        choices=("cka", "panels", "networks"),
        help="cka: how alike students and teachers see images; panels: "
        "their predictions side by side, on images that a rule chooses; networks: measure every network, for "
        "networks.json",
    )
    sub.add_argument("--dataset", help="whose runs (default: the only one there is)")
    sub.add_argument("--data-root", type=Path, help="folder of a dataset that has files")
    sub.add_argument("--methods", nargs="+", default=[], metavar="NAME", help="only these, and the student alone")
    sub.add_argument(
        "--teacher",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="teacher checkpoints that are no longer where they were",
    )
    add_work_dir(sub)
    add_device(sub)


def analyze(arguments: Namespace) -> int:
    """`kdseg analyze cka | panels | networks`: writes data files that figures, plans and pages read."""
    from benchmark.records.record import records

    if arguments.what == "networks":
        from benchmark.models.build import write_facts
        from benchmark.spec.networks import FACTS

        write_facts(FACTS)
        say_where({"networks": [str(FACTS)]})
        return 0
    from benchmark.analysis import cka, panels
    from benchmark.analysis.sources import Workplace, choose, known_files

    groups = choose(records(arguments.work_dir), arguments.dataset, arguments.methods)
    files = known_files(arguments.work_dir, arguments.teacher)
    workplace = Workplace(arguments.work_dir, files, arguments.data_root, device_of(arguments))
    written = {"cka": cka, "panels": panels}[arguments.what].analyze(
        groups, workplace, lambda line: print(line, file=sys.stderr)
    )
    say_where({arguments.what: [str(path) for path in written]})
    return 0
