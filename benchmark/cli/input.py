"""What commands read: the results in a work directory, and checkpoints."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.cli.options import add_device
from benchmark.core.errors import KdsegError

if TYPE_CHECKING:
    from benchmark.deploy.load import Loaded
    from benchmark.records.record import Record
    from benchmark.results.results import Results
    from benchmark.spec.definitions import Dataset


def results(work_dir: Path, loaded: Sequence[Record] | None = None) -> Results:
    """All that is known of the runs in a work directory, or in a folder of records (`loaded`: its records).

    Raises:
        KdsegError: it holds no records.
    """
    from benchmark.records.record import records
    from benchmark.records.run_directory import manifests
    from benchmark.results.results import Results

    folder = record_folder(work_dir)
    loaded = records(work_dir) if loaded is None else loaded
    if not loaded:
        raise no_records(work_dir)
    return Results.of(
        loaded, manifests(work_dir).values(), _reason(work_dir), lambda run_id: folder / run_id / "areas.npz"
    )


def record_folder(work_dir: Path) -> Path:
    """Where the run directories of a work directory are; a folder of records is one itself."""
    return work_dir / "runs" if (work_dir / "runs").is_dir() else work_dir


def no_records(work_dir: Path) -> KdsegError:
    """The error for a folder without records."""
    return KdsegError(f"{work_dir}: holds no records; run a sweep first, or pass --work-dir")


def _reason(work_dir: Path) -> Callable[[str], str]:
    """Why a run has no result, for the footnote of a hole."""
    from benchmark.records.run_directory import RunDirectory

    def reason(run_id: str) -> str:
        now = RunDirectory(work_dir, run_id).status()
        if now is None:
            return "not run"
        return f"{now.state} at iteration {now.iteration} of {now.iterations}" + (
            f": {now.message}" if now.message else ""
        )

    return reason


def add_checkpoint(sub: ArgumentParser) -> None:
    """Declare a checkpoint and what says which network it holds; `checkpoint` reads it."""
    sub.add_argument("checkpoint", type=Path, help="a checkpoint, a run directory, or a folder that export wrote")
    sub.add_argument(
        "--config",
        type=Path,
        help="its mmseg config; it is Python and is executed (default: what lies beside the "
        "checkpoint, read as data and never executed)",
    )
    sub.add_argument("--model", help="instead of a config: one of our networks, with --protocol")
    sub.add_argument("--protocol", help="with --model: the protocol that says how pixels are normalised")
    add_device(sub)


def checkpoint(arguments: Namespace) -> tuple[Dataset | None, Loaded]:
    """The data set that is meant (None: nobody says) and the loaded checkpoint."""
    from benchmark.deploy.load import NetworkChoice, load_network
    from benchmark.spec import definitions

    dataset = definitions.dataset(arguments.dataset) if arguments.dataset else None
    choice = NetworkChoice(arguments.config, arguments.model, arguments.protocol)
    loaded = load_network(arguments.checkpoint, choice, dataset)
    if dataset is None and loaded.deployed.dataset:
        dataset = definitions.dataset(loaded.deployed.dataset)
    if dataset and loaded.classes and not _same_names(dataset.classes, loaded.classes):
        print(f"note: {loaded.file.name} was trained on other classes than those of {dataset.name}", file=sys.stderr)
    return dataset, loaded


def _same_names(first: Iterable[str], second: Iterable[str]) -> bool:
    def plain(names: Iterable[str]) -> list[str]:
        return ["".join(filter(str.isalnum, name.lower())) for name in names]

    return plain(first) == plain(second)
