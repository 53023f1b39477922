"""Scores from areas. An area array has the rows intersection, union, prediction, label, in pixels, per class."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from benchmark.core.files import write_bytes

INTERSECT, UNION, LABELLED = 0, 1, 3
"""The rows that scores are made of; row 2 holds the pixels predicted as a class."""

Convention = Literal["mmseg", "cirkd"]


class AreaScores(NamedTuple):
    """Scores in percent; `iou` (classes,) is NaN where the union is empty."""

    miou: float
    macc: float
    aacc: float
    iou: np.ndarray


def scores(areas: np.ndarray, convention: Convention = "mmseg") -> AreaScores:
    """Scores of areas summed over images.

    mmseg's convention leaves a class out of the mean only if its union is empty: absent from the truth but predicted,
    it counts as 0. CIRKD's (`utils/score.py`, 2d8ad0f) takes the mean over all classes, so an absent class counts as 0.

    Args:
        areas: (images, 4, classes) or (4, classes), integers.
        convention: which mean the mIoU is.
    """
    total = areas.reshape(-1, 4, areas.shape[-1]).sum(axis=0, dtype=np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = 100 * total[INTERSECT] / total[UNION]
        accuracy = 100 * total[INTERSECT] / total[LABELLED]
        overall = 100 * total[INTERSECT].sum() / total[LABELLED].sum()
    counted = np.nan_to_num(iou) if convention == "cirkd" else iou
    return AreaScores(_mean(counted), _mean(accuracy), float(overall), iou)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def write_areas(file: Path, names: list[str], areas: np.ndarray) -> str:
    """Write areas (images, 4, classes) int64 with their image names; returns the file's sha256."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, names=np.array(names), areas=areas)
    write_bytes(file, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def read_areas(file: Path) -> tuple[list[str], np.ndarray]:
    """Image names and areas (images, 4, classes): intersection, union, prediction, label."""
    with np.load(file, allow_pickle=False) as data:
        return data["names"].tolist(), data["areas"]
