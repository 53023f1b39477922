"""`kdseg eval`: the scores of a checkpoint."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from benchmark.cli.input import add_checkpoint, checkpoint
from benchmark.cli.options import Commands, add_command, device_of
from benchmark.cli.output import print_table
from benchmark.core.errors import KdsegError


def add_commands(commands: Commands) -> None:
    """Declare `kdseg eval`."""
    sub = add_command(
        commands,
        score,
        "eval",
        "score a checkpoint: an exported student, a run's, or any of mmsegmentation",
        "kdseg eval exported --dataset drawn",
    )
    sub.add_argument("--dataset", help="see `kdseg list datasets` (default: the one that the student was trained on)")
    sub.add_argument("--split", choices=("train", "val"), default="val")
    sub.add_argument("--data-root", type=Path, help="folder of a dataset that has files")
    sub.add_argument("--format", choices=("table", "json"), default="table")
    add_checkpoint(sub)


def score(arguments: Namespace) -> int:
    """`kdseg eval`: the scores of a checkpoint on a split."""
    from benchmark.deploy.score import in_percent, score_network

    dataset, loaded = checkpoint(arguments)
    if dataset is None:
        raise KdsegError(f"{loaded.file}: does not say what it was trained on; pass --dataset NAME")
    scores = in_percent(
        loaded,
        score_network(loaded, dataset, arguments.split, arguments.data_root, device_of(arguments)),
        arguments.split,
    )
    if arguments.format == "json":
        print(json.dumps(scores, indent=1, ensure_ascii=False))
        return 0
    rows = [{"class": key, "IoU": _percent(value)} for key, value in scores["IoU"].items()]
    print_table(f"{loaded.file.name} on {dataset.name} {arguments.split}, {scores['images']} images", rows)
    print("  ".join(f"{key} {_percent(scores[key])}" for key in ("mIoU", "mAcc", "aAcc")))
    return 0


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
