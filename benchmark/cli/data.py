"""`kdseg data`: check a dataset's files, or make those that its download lacks."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from benchmark.cli.options import Commands, add_command, positive
from benchmark.cli.output import print_table
from benchmark.core.errors import KdsegError


def add_commands(commands: Commands) -> None:
    """Declare `kdseg data`."""
    sub = add_command(
        commands,
        data,
        "data",
        "check a dataset's files, or make those that its download lacks",
        "kdseg data check cityscapes --data-root DIR",
    )
    sub.add_argument(
        "action",
        choices=("check", "prepare"),
        help="check: read every file and name each problem, exit code 1 if "
        "there is one; prepare: Cityscapes' labelTrainIds, VOC's SegmentationClassAug and trainaug.txt",
    )
    sub.add_argument("name", help="see `kdseg list datasets`")
    sub.add_argument("--data-root", "--root", type=Path, required=True, help="folder of the dataset")
    sub.add_argument("--sbd", type=Path, help="prepare voc: folder of SBD (default: looked for beside VOC2012)")
    sub.add_argument("--checkpoint", type=Path, help="check: a network that must tell as many classes apart")
    sub.add_argument("--workers", type=positive, help="files at the same time (default: one per core)")


def data(arguments: Namespace) -> int:
    """`kdseg data`: look at a dataset's files, or make those that its download lacks."""
    if arguments.action == "check":
        if arguments.sbd:
            raise KdsegError("--sbd: goes with `data prepare` only")
        return _check(arguments)
    if arguments.checkpoint:
        raise KdsegError("--checkpoint: goes with `data check` only")
    return _prepare(arguments)


def _check(arguments: Namespace) -> int:
    """The facts of each split as a table, then every problem in a line; 1 if there is one."""
    from rich.console import Console
    from rich.progress import track

    from benchmark.data.check import inspect
    from benchmark.spec import definitions

    definition = definitions.dataset(arguments.name)

    def bar(items: Any, count: int, split: str) -> Any:
        console, quiet = Console(stderr=True), not sys.stderr.isatty()
        return track(items, split, count, console=console, transient=True, disable=quiet)

    report = inspect(definition, arguments.data_root, _workers(arguments), arguments.checkpoint, bar)
    rows = [
        {
            "split": facts.split,
            "images": facts.images,
            "officially": facts.official,
            "sizes": _sizes(facts.sizes),
            "classes": f"{len(facts.labels)} of {len(definition.classes)}",
            "list hash": facts.list_hash,
        }
        for facts in report.splits
    ]
    if rows:
        print_table(f"{definition.title} in {arguments.data_root}", rows)
    for problem in report.problems:
        print(f"problem: {problem}")
    if not report.problems:
        print("no problems: these are the official images, and every label can be read")
    return 1 if report.problems else 0


def _prepare(arguments: Namespace) -> int:
    from benchmark.data.prepare import prepare
    from benchmark.spec import definitions

    definition = definitions.dataset(arguments.name)
    for line in prepare(definition, arguments.data_root, arguments.sbd, _workers(arguments)):
        print(line)
    return 0


def _sizes(sizes: dict[tuple[int, int], int]) -> str:
    """Width × height, as picture viewers say it; a range where there are several."""
    if len(sizes) == 1:
        ((height, width),) = sizes
        return f"{width}×{height}"
    if not sizes:
        return ""
    heights, widths = zip(*sizes, strict=True)
    return f"{len(sizes)} sizes, {min(widths)} to {max(widths)} × {min(heights)} to {max(heights)}"


def _workers(arguments: Namespace) -> int:
    return arguments.workers or len(os.sched_getaffinity(0))
