"""Scores of any checkpoint on a split."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from benchmark.data.datasets import val_batches, val_dataset
from benchmark.deploy.load import Loaded
from benchmark.records.areas import AreaScores, scores
from benchmark.spec.definitions import Dataset
from benchmark.training.evaluation import Evaluated, count_areas, evaluate


class Evaluation(NamedTuple):
    """Scores of a checkpoint on a split, and the areas (images, 4, classes) that they follow from."""

    dataset: Dataset
    names: list[str]
    areas: np.ndarray
    scores: AreaScores


def score_network(
    loaded: Loaded, dataset: Dataset, split: Literal["train", "val"], data_root: Path | None, device: torch.device
) -> Evaluation:
    """Scores of a network on a split, by the trainer's own evaluation where its pixels are only normalised.

    Where its config resizes or pads test pictures, mmseg predicts picture by picture, back at their own size.
    """
    deployed, data = loaded.deployed.to(device), val_dataset(dataset, data_root, split)
    if deployed.normalisation is not None:
        member = {"": Evaluated(deployed.network, deployed.normalisation)}
        areas = evaluate(member, data, deployed.classes, deployed.batch, 0, device)[""]
    else:
        areas = np.zeros((len(data), 4, deployed.classes), np.int64)
        for (index,), raw in val_batches(data, 1, 0):
            prediction = deployed.labels(raw["inputs"][0].permute(1, 2, 0).numpy())
            label = raw["data_samples"][0].gt_sem_seg.data.squeeze(0).to(device)
            areas[index] = count_areas(prediction, label, deployed.classes).cpu().numpy()
    return Evaluation(dataset, data.names(), areas, scores(areas))


def in_percent(loaded: Loaded, evaluation: Evaluation, split: str) -> dict[str, Any]:
    """Scores in percent as plain data; a class without a pixel in truth and prediction has no IoU."""
    result, dataset = evaluation.scores, evaluation.dataset
    iou = {name: _number(value) for name, value in zip(dataset.classes, result.iou, strict=True)}
    return {
        "checkpoint": str(loaded.file),
        "dataset": dataset.name,
        "split": split,
        "images": len(evaluation.names),
        "mIoU": _number(result.miou),
        "mAcc": _number(result.macc),
        "aAcc": _number(result.aacc),
        "IoU": iou,
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
