"""What a validation set of finite size leaves open: bootstrap over its images, from the areas that each run keeps.

It speaks of other images of the same kind, and of nothing else: not of other seeds, teachers or data sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.records.areas import INTERSECT, UNION
from benchmark.results.stats import percentiles
from benchmark.spec.definitions import Dataset

STRETCH = 10
"""Images of a stretch, where all images of a set are of one block (CamVid: one drive)."""

DRAWS = 2000
"""Resamples of the images."""


@dataclass(frozen=True)
class ImageInterval:
    """95 % percentile interval over images, in percent or points; `blocks` of images were drawn as a whole."""

    low: float
    high: float
    blocks: int


def blocks(names: Sequence[str], dataset: Dataset) -> list[str]:
    """The block of each image: images of one block depend on each other (`Dataset.dependent`).

    Where all are of one block, stretches of `STRETCH` consecutive images by name take its place.
    """
    by_image = [dataset.block(name) for name in names]
    if len(set(by_image)) > 1:
        return by_image
    places = {name: index for index, name in enumerate(sorted(names))}
    return [f"{block} {places[name] // STRETCH}" for name, block in zip(names, by_image, strict=True)]


def miou_interval(areas: np.ndarray, of_block: Sequence[str], seed: int = 0) -> ImageInterval | None:
    """Interval of the mIoU of areas (images, 4, classes), by mmseg's convention; None if there is one block only."""
    return _interval([(areas, None)], of_block, seed)


def difference_interval(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], of_block: Sequence[str], seed: int = 0
) -> ImageInterval | None:
    """Interval of mIoU(first) − mIoU(second), mean over `pairs` of areas (images, 4, classes) of the same images.

    The same images are drawn for both and for all pairs (seeds). None if there is one block only.
    """
    return _interval(pairs, of_block, seed)


def _interval(
    pairs: Sequence[tuple[np.ndarray, np.ndarray | None]], of_block: Sequence[str], seed: int
) -> ImageInterval | None:
    keys = {key: index for index, key in enumerate(dict.fromkeys(of_block))}
    if len(keys) < 2:
        return None
    member = np.array([keys[key] for key in of_block])
    random = np.random.default_rng(seed)
    # How often each block is drawn: (draws, blocks).
    counts = random.multinomial(len(keys), np.full(len(keys), 1 / len(keys)), size=DRAWS).astype(np.float64)
    values = np.zeros(DRAWS)
    for first, second in pairs:
        values += _mious(first, member, counts)
        if second is not None:
            values -= _mious(second, member, counts)
    low, high = percentiles(values / len(pairs))
    return ImageInterval(low, high, len(keys))


def _mious(areas: np.ndarray, member: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """mIoU in percent of each resample (draws,), from areas (images, 4, classes) and the block of each image."""
    totals = np.zeros((2, counts.shape[1], areas.shape[-1]))
    for index, row in enumerate((INTERSECT, UNION)):
        np.add.at(totals[index], member, areas[:, row])
    intersect, union = counts @ totals[0], counts @ totals[1]
    present = union > 0
    iou = np.divide(100 * intersect, union, out=np.zeros_like(union), where=present)
    return iou.sum(axis=1) / np.maximum(present.sum(axis=1), 1)
