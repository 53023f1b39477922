"""Small trees of files in the genuine layouts of the data sets: noise pictures, labels that use every kind of value."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from benchmark.data.layouts import find_pairs
from benchmark.spec import definitions

VOID = 255
COUNTS = {"train": 4, "val": 2}
CITIES = {"train": ("aachen", "bremen"), "val": ("frankfurt",)}
_TRAIN_TO_ID = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # Cityscapes' own ids


def tree(name: str, root: Path) -> Path:
    """Build the tree of data set `name` (four training and two validation samples) below `root`, and return `root`."""
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        _BUILDERS[name](root, split, count, rng)
    return root


def _camvid(root: Path, split: str, count: int, rng: np.random.Generator) -> None:
    drive = {"train": "0001TP", "val": "0016E5"}[split]
    names = [f"{drive}_{index:06d}" for index in range(count)]
    for name in names:
        _save(_noise(rng), root / f"images/{split}/{name}.jpg")
        _save(_labels(rng, 11), root / f"labels/{split}/{name}.png")
    _write_list(root / f"splits/{split}.txt", names)


def _voc(root: Path, split: str, count: int, rng: np.random.Generator) -> None:
    """Labels are palette pictures, as VOC's are; one more sample is in no list."""
    names = [f"{2007 if split == 'train' else 2008}_{index:06d}" for index in range(count)]
    for index, name in enumerate([*names, "2011_009999"]):
        size = (60 + 4 * index, 80)
        _save(_noise(rng, size), root / f"JPEGImages/{name}.jpg")
        _save(_labels(rng, 21, size), root / f"SegmentationClassAug/{name}.png", definitions.dataset("voc").palette)
    list_name = {"train": "trainaug", "val": "val"}[split]
    _write_list(root / f"ImageSets/Segmentation/{list_name}.txt", names)


def _ade20k(root: Path, split: str, count: int, rng: np.random.Generator) -> None:
    """Labels are 0 where nothing is labelled, and 1 to 150; there are no lists."""
    folder = {"train": "training", "val": "validation"}[split]
    for index in range(count):
        name, size = f"ADE_{split}_{index + 1:08d}", (60, 80 + 4 * index)
        _save(_noise(rng, size), root / f"images/{folder}/{name}.jpg")
        _save(rng.integers(0, 151, size, np.uint8), root / f"annotations/{folder}/{name}.png")


def _cityscapes(root: Path, split: str, count: int, rng: np.random.Generator) -> None:
    """City folders; beside labelTrainIds lie the other three kinds of labels."""
    ids = np.zeros(256, np.uint8)
    ids[: len(_TRAIN_TO_ID)] = _TRAIN_TO_ID
    palette = np.zeros((256, 3), np.uint8)
    palette[:19] = definitions.dataset("cityscapes").palette
    for index in range(count):
        city = CITIES[split][index % len(CITIES[split])]
        stem = f"{city}/{city}_{index:06d}_000019"
        labels = _labels(rng, 19)
        _save(_noise(rng), root / f"leftImg8bit/{split}/{stem}_leftImg8bit.png")
        kinds = {
            "labelTrainIds": labels,
            "labelIds": ids[labels],
            "color": palette[labels],
            "instanceIds": ids[labels].astype(np.uint16) * 1000,
        }
        for kind, values in kinds.items():
            _save(values, root / f"gtFine/{split}/{stem}_gtFine_{kind}.png")


@cache
def official(name: str) -> definitions.Dataset:
    """The definition of data set `name` as if its tree held the official images."""
    whole = definitions.dataset(name)
    with tempfile.TemporaryDirectory() as folder:
        root = tree(name, Path(folder))
        splits = {
            split: layout.model_copy(
                update={"count": COUNTS[split], "official": definitions.names_hash(_names(whole, split, root))}
            )
            for split, layout in whole.splits.items()
        }
    return whole.model_copy(update={"splits": splits})


def _names(definition: definitions.Dataset, split: str, root: Path) -> list[str]:
    return [pair.name for pair in find_pairs(definition, split, root)]


_BUILDERS = {"camvid": _camvid, "voc": _voc, "ade20k": _ade20k, "cityscapes": _cityscapes}


def _noise(rng: np.random.Generator, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    return rng.integers(0, 256, (*size, 3), np.uint8)


def _labels(rng: np.random.Generator, classes: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    return rng.choice([*range(classes), VOID], size).astype(np.uint8)


def _save(values: np.ndarray, path: Path, palette: tuple[tuple[int, int, int], ...] = ()) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values)
    if palette:
        picture.putpalette([channel for colour in palette for channel in colour])
    picture.save(path)


def _write_list(path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(names) + "\n")
