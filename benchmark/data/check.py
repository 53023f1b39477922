"""Looks at every file of a dataset before a run does: counts, names, sizes, labels, and images that are there twice."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.errors import KdsegError
from benchmark.core.files import file_sha256
from benchmark.data.datasets import SeededDataset, val_dataset
from benchmark.data.layouts import Split, find_root
from benchmark.data.loading import LoadSample, read_labels
from benchmark.models import checkpoints
from benchmark.spec.definitions import IGNORE, Dataset, names_hash


@dataclass(frozen=True)
class SplitFacts:
    """What a split holds here; `list_hash` is what records name it by.

    Attributes:
        sizes: how many images have each (height, width).
        labels: the label values that occur, the classes from 0 on.
    """

    split: str
    images: int
    official: int
    sizes: dict[tuple[int, int], int]
    labels: tuple[int, ...]
    list_hash: str


@dataclass(frozen=True)
class Inspection:
    """All that was found; without `problems`, a line each, the dataset is the official one."""

    splits: tuple[SplitFacts, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Sample:
    place: str
    size: tuple[int, int] | None = None
    labels: tuple[int, ...] = ()
    sha256: str = ""
    fault: str = ""


def inspect(
    definition: Dataset,
    root: Path | None,
    workers: int = 1,
    checkpoint: Path | None = None,
    beat: Callable[[Iterable[Any], int, str], Iterable[Any]] = lambda items, count, what: items,
) -> Inspection:
    """Read every image and every label of a dataset of files.

    Args:
        definition, root: what it should be, and where it is.
        workers: files that are read at the same time.
        checkpoint: of a network that must tell as many classes apart; None: not looked at.
        beat: wraps the samples of a split (their number, its name), for a progress bar.

    Raises:
        KdsegError: the dataset has no files.
    """
    if definition.layout == "drawn":
        raise KdsegError(f"dataset {definition.name}: is drawn; it has no files to check")
    facts: list[SplitFacts] = []
    problems: list[str] = []
    seen: dict[str, list[str]] = defaultdict(list)
    names: dict[str, str] = {}
    for split in definition.splits:
        try:
            data = val_dataset(definition, root, split)
        except KdsegError as error:
            problems.append(str(error))
            continue
        problems += _list_problems(definition, split, data)
        twice = [name for name in data.names() if name in names]
        if twice:
            problems.append(f"{split}: {_first(twice)} also in {names[twice[0]]}; validation must be on other images")
        names |= dict.fromkeys(data.names(), split)
        samples = list(beat(_read(definition, data, find_root(definition, root), workers), len(data), split))
        problems += _kinds(sample.fault for sample in samples if sample.fault)
        for sample in samples:
            if sample.sha256:
                seen[sample.sha256].append(sample.place)
        facts.append(_facts(definition, split, data, samples))
    problems += _kinds(f"same content: {' and '.join(places)}" for places in seen.values() if len(places) > 1)
    if checkpoint:
        problems += _checkpoint_problems(definition, checkpoint)
    return Inspection(tuple(facts), tuple(dict.fromkeys(problems)))


def _list_problems(definition: Dataset, split: Split, data: SeededDataset) -> list[str]:
    layout = definition.splits[split]
    if len(data) != layout.count:
        return [f"{split}: {len(data)} images, officially {layout.count}; complete it, or remove what is too much"]
    digest = names_hash(data.names())
    if layout.official and digest != layout.official:
        where = layout.names or layout.images
        return [f"{split}: {where} names other images than the official split (hash {digest}, not {layout.official})"]
    return []


def _read(definition: Dataset, data: SeededDataset, root: Path, workers: int) -> Iterator[_Sample]:
    entries = [data.get_data_info(index) for index in range(len(data))]
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(partial(_read_one, definition, root), entries)


def _read_one(definition: Dataset, root: Path, entry: dict[str, Any]) -> _Sample:
    image, label = Path(entry["img_path"]), Path(entry["seg_map_path"])
    path = str(image.relative_to(root))
    load = LoadSample(definition.name, len(definition.classes), definition.reduce_zero_label, definition.label_ids)
    try:
        digest = file_sha256(image)
        labels = load(entry)["gt_seg_map"]
        own = root / definition.own_labels / label.name
        fault = ""
        if definition.own_labels and own.is_file() and not np.array_equal(read_labels(own), labels):
            fault = f"label {label}: differs from {own}, which goes before it; remove it, then `kdseg data prepare`"
        return _Sample(path, labels.shape, tuple(np.unique(labels).tolist()), digest, fault)
    except KdsegError as error:
        return _Sample(path, fault=str(error))
    except OSError as error:
        return _Sample(path, fault=f"image {image}: cannot be read: {error.strerror}")


def _kinds(faults: Iterable[str]) -> list[str]:
    """A line for each kind of fault, whatever paths and numbers are in it: its first, and how many are like it."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for fault in faults:
        kinds[re.sub(r"\S*/\S*|[\d,…\s]+", "", fault)].append(fault)
    return [same[0] + (f" (and {len(same) - 1} more like it)" if len(same) > 1 else "") for same in kinds.values()]


def _facts(definition: Dataset, split: Split, data: SeededDataset, samples: list[_Sample]) -> SplitFacts:
    sizes = Counter(sample.size for sample in samples if sample.size)
    labels = {value for sample in samples for value in sample.labels}
    return SplitFacts(
        split=split,
        images=len(data),
        official=definition.splits[split].count,
        sizes=dict(sorted(sizes.items())),
        labels=tuple(sorted(labels - {IGNORE})),
        list_hash=data.list_hash(),
    )


def _checkpoint_problems(definition: Dataset, file: Path) -> list[str]:
    """A checkpoint with another number of classes than the dataset."""
    try:
        content = checkpoints.load(file)
    except KdsegError as error:
        return [str(error)]
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    classifier = state.get("decode_head.conv_seg.weight")
    if classifier is None:
        return [f"{file}: holds no decode_head.conv_seg.weight; turn it into ours with `kdseg import-checkpoint`"]
    if len(classifier) != len(definition.classes):
        return [f"{file}: tells {len(classifier)} classes apart, {definition.name} has {len(definition.classes)}"]
    return []


def _first(names: list[str]) -> str:
    return f"{names[0]} is" if len(names) == 1 else f"{len(names)} images, first {names[0]}, are"
