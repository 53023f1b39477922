"""Evaluates networks on a split: areas per image, from which every score follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.definitions import Normalisation
from benchmark.method import IGNORE
from benchmark.randomness import stream
from benchmark.toolbox.data import SeededDataset, val_batches
from benchmark.toolbox.segmentation import Preprocessor, predict


class Evaluated(NamedTuple):
    """A network to evaluate, how it wants its pixels, and in how many strips it gets a picture."""

    network: nn.Module
    normalisation: Normalisation
    parts: int = 1


def count_areas(prediction: Tensor, label: Tensor, classes: int) -> Tensor:
    """Areas (4, classes), int64, of one image, over the pixels that are not ignored, by a single count.

    Args:
        prediction: classes (H, W).
        label: classes (H, W), `IGNORE` where it does not count.
        classes: how many there are.
    """
    counted = label != IGNORE
    codes = label[counted].long() * classes + prediction[counted].long()
    confusion = torch.bincount(codes, minlength=classes * classes).reshape(classes, classes)
    hit, predicted, labelled = confusion.diagonal(), confusion.sum(0), confusion.sum(1)
    return torch.stack([hit, predicted + labelled - hit, predicted, labelled])


def evaluate(
    members: Mapping[str, Evaluated],
    dataset: SeededDataset,
    classes: int,
    batch: int,
    workers: int,
    device: torch.device,
    beat: Callable[[], None] = lambda: None,
) -> dict[str, np.ndarray]:
    """Areas (images, 4, classes) of each member in one pass over the split; train or eval mode is left as it was.

    Every batch has a random stream of its own, for networks that draw numbers even in evaluation; `beat` is called
    after each.
    """
    modes = {name: member.network.training for name, member in members.items()}
    areas = {name: np.zeros((len(dataset), 4, classes), np.int64) for name in members}
    preprocessors: dict[Normalisation, Preprocessor] = {
        member.normalisation: Preprocessor(member.normalisation, None, device) for member in members.values()
    }
    try:
        for indices, raw in val_batches(dataset, batch, workers):
            inputs = {key: preprocessor.evaluate(raw) for key, preprocessor in preprocessors.items()}
            labels = [sample.gt_sem_seg.data.squeeze(0).to(device) for sample in raw["data_samples"]]
            for name, member in members.items():
                member.network.eval()
                with torch.no_grad(), stream(0, "evaluate", indices[0]):
                    predictions = predict(member.network, inputs[member.normalisation], labels[0].shape, member.parts)
                _fill(areas[name], indices, predictions, labels, classes)
            beat()
    finally:
        for name, member in members.items():
            member.network.train(modes[name])
    return areas


def _fill(
    areas: np.ndarray, indices: Sequence[int], predictions: Tensor, labels: Sequence[Tensor], classes: int
) -> None:
    for index, prediction, label in zip(indices, predictions, labels, strict=True):
        areas[index] = count_areas(prediction, label, classes).cpu().numpy()
