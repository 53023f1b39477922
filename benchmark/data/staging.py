"""Copies a dataset to a disk of the node, once per node, for all processes that train there."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from benchmark.core.errors import KdsegError
from benchmark.core.files import file_sha256, make_folder
from benchmark.core.schema import content_hash
from benchmark.data.layouts import find_pairs, find_root
from benchmark.spec.definitions import Dataset

READY = ".complete"
"""The file that is written into a copy last, with its hash."""


def stage(definition: Dataset, root: Path | None, folder: Path) -> Path:
    """Copy what the splits of a dataset name to a folder of its own in `folder`, and return that one.

    One process copies while others on the node wait for its lock. The copy is compared with the source by sha256, and
    gets its name only when it is whole; that name holds a hash of the files' names, sizes and times, so changed sources
    are copied anew. A copy that is there is taken if it still has all files in their sizes.

    Args:
        definition: a dataset of files.
        root: where they are.
        folder: one on the node's own disk; it is made if it is missing.

    Raises:
        KdsegError: the source is incomplete, or the folder cannot be written or has too little room.
    """
    source = find_root(definition, root)
    files = _files(definition, source)
    fingerprint = content_hash([[name, size, time] for name, (size, time) in files.items()])
    target = folder / f"{definition.name}-{fingerprint}"
    make_folder(folder)
    try:
        with (folder / f".{target.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _whole(target, files):
                _copy(source, target, files)
    except OSError as error:
        raise KdsegError(f"--stage {folder}: cannot be written: {error.strerror or error}") from error
    return target


def _files(definition: Dataset, root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of each file that the splits name, by its place below the root."""
    paths = [root / layout.names for layout in definition.splits.values() if layout.names]
    for split in definition.splits:
        for pair in find_pairs(definition, split, root):
            paths += [pair.image, pair.label]
    states = {str(path.relative_to(root)): path.stat() for path in paths}
    return {name: (state.st_size, state.st_mtime_ns) for name, state in sorted(states.items())}


def _whole(target: Path, files: dict[str, tuple[int, int]]) -> bool:
    if not (target / READY).is_file():
        return False
    try:
        return all((target / name).stat().st_size == size for name, (size, _) in files.items())
    except OSError:
        return False


def _copy(source: Path, target: Path, files: dict[str, tuple[int, int]]) -> None:
    """Copy to a temporary folder, compare, rename. We hold the lock: what is left of others is of dead ones."""
    for left in (target, target.with_name(f".{target.name}.tmp")):
        shutil.rmtree(left, ignore_errors=True)
    needed, free = sum(size for size, _ in files.values()), shutil.disk_usage(target.parent).free
    if needed > free:
        raise KdsegError(
            f"--stage {target.parent}: has {free // 2**20:,} MiB free, the dataset needs {-(-needed // 2**20):,} MiB"
        )
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        for name in files:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, temporary / name)
            if file_sha256(temporary / name) != file_sha256(source / name):
                raise KdsegError(f"--stage: {temporary / name} is not what {source / name} is; is the disk damaged?")
        (temporary / READY).touch()
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
