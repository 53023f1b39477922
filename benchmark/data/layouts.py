"""Finds the pictures and labels of a split below a data root, and says what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from benchmark.core.errors import KdsegError
from benchmark.spec.definitions import Dataset

Split = Literal["train", "val"]


def check_splits(definition: Dataset, root: Path | None) -> None:
    """See before anything starts that a dataset's splits can be found below the root that is given.

    Raises:
        KdsegError: as `find_pairs`.
    """
    if definition.layout == "files":
        for split in definition.splits:
            find_pairs(definition, split, root)


class SampleFiles(NamedTuple):
    """One sample: its name (without folders and suffix) and its two files."""

    name: str
    image: Path
    label: Path


def find_root(definition: Dataset, root: Path | None) -> Path:
    """The folder that the dataset's own folders are in: the one given, or one that a download wraps them in.

    Raises:
        KdsegError: none given, or it is not there or may not be read.
    """
    if root is None:
        raise KdsegError(f"dataset {definition.name}: needs its files; pass --data-root DIR")
    try:
        if not root.is_dir():
            raise KdsegError(
                f"data root {root}: no such folder; pass the folder that holds {definition.name} as --data-root"
            )
        os.listdir(root)
        images = definition.splits["train"].images
        wrapped = [root / inner for inner in definition.within if (root / inner / images).is_dir()]
        return root if (root / images).is_dir() or not wrapped else wrapped[0]
    except OSError as error:
        raise KdsegError(f"data root {root}: cannot be read: {error.strerror}") from None


def find_pairs(definition: Dataset, split: Split, root: Path | None) -> list[SampleFiles]:
    """The samples of a split: in the order of its list if it has one, else by name. Any number of them will do.

    Raises:
        KdsegError: no root given; root, folder or list missing or unreadable; nothing there; an image without its
            label or a label without its image (where there is a list, files that it does not name do not count).
    """
    root = find_root(definition, root)
    where = f"data root {root}"
    hint = f"; {definition.obtain}" if definition.obtain else ""
    layout = definition.splits[split]
    images, labels = root / layout.images, root / layout.labels
    try:
        for folder, text in ((images, ""), (labels, hint)):
            if not folder.is_dir() or not any(folder.iterdir()):
                raise KdsegError(
                    f"{where}: {folder.relative_to(root)} is missing or empty; expected {definition.title}{text}"
                )
        have_image = _names_below(images, definition.image_suffix)
        have_label = _names_below(labels, definition.label_suffix)
    except OSError as error:
        raise KdsegError(f"{where}: {error.filename} cannot be read: {error.strerror}") from None
    names = read_names(root, layout.names, hint) if layout.names else sorted(have_image | have_label)
    if not names:
        reason = (
            f"{layout.names} names no sample" if layout.names else f"no *{definition.image_suffix} in {layout.images}"
        )
        raise KdsegError(f"{where}: {definition.name} {split} is empty: {reason}")
    for kind, subfolder, suffix, have, text in (
        ("image", layout.images, definition.image_suffix, have_image, ""),
        ("label", layout.labels, definition.label_suffix, have_label, hint),
    ):
        if lost := [name for name in names if name not in have]:
            count = f"1 {kind} is missing:" if len(lost) == 1 else f"{len(lost)} {kind}s are missing, first"
            raise KdsegError(f"{where}: {definition.name} {split}: {count} {subfolder}/{lost[0]}{suffix}{text}")
    return [
        SampleFiles(
            os.path.basename(name), images / (name + definition.image_suffix), labels / (name + definition.label_suffix)
        )
        for name in names
    ]


def read_names(root: Path, file: str, hint: str = "") -> list[str]:
    """The names in a list file below a root, each once.

    Raises:
        KdsegError: it is missing, cannot be read, or names something twice.
    """
    try:
        names = [line.strip() for line in (root / file).read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise KdsegError(f"data root {root}: the list {file} is missing{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise KdsegError(f"data root {root}: the list {file} cannot be read: {error}") from None
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise KdsegError(f"data root {root}: the list {file} names {name} more than once")
        seen.add(name)
    return names


def _names_below(folder: Path, suffix: str) -> set[str]:
    """Relative paths, less the suffix, of the files in `folder` and its folders, linked ones included.

    One scan instead of a look at every file: on a network disk that is seconds against minutes.
    """

    def files() -> Iterator[os.DirEntry[str]]:
        for entry in os.scandir(folder):
            yield from os.scandir(entry) if entry.is_dir() else (entry,)

    return {
        os.path.relpath(entry.path, folder).removesuffix(suffix)
        for entry in files()
        if entry.name.endswith(suffix) and entry.is_file()
    }
