"""Evaluates networks on a split: areas per image, from which every score follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.data.datasets import SeededDataset, val_batches
from benchmark.method import IGNORE
from benchmark.models.segmentation import Preprocessor, predict
from benchmark.runtime import distributed
from benchmark.runtime.clocks import Stopwatch
from benchmark.runtime.randomness import stream
from benchmark.spec.definitions import Normalisation


class Evaluated(NamedTuple):
    """A network to evaluate, how it wants its pixels, in how many strips it gets a picture, and what times it."""

    network: nn.Module
    normalisation: Normalisation
    parts: int = 1
    watch: Stopwatch | None = None


def count_areas(prediction: Tensor, label: Tensor, classes: int) -> Tensor:
    """Areas (..., 4, classes), int64, of each image, over the pixels that are not ignored, by a single count.

    Args:
        prediction: classes (..., H, W), any integer type.
        label: as `prediction`, `IGNORE` where it does not count.
        classes: how many there are.
    """
    images, rows = prediction.shape[:-2].numel(), IGNORE + 1
    # A row for every value that a label can have, ignored or not: leaving pixels out would cost ten times the count.
    codes = torch.add(prediction.long(), label, alpha=classes).reshape(images, -1)
    if images > 1:
        codes += torch.arange(images, device=codes.device)[:, None] * (rows * classes)
    counts = torch.bincount(codes.flatten(), minlength=images * rows * classes)
    confusion = counts.view(*prediction.shape[:-2], rows, classes)[..., :classes, :]
    hit, predicted, labelled = confusion.diagonal(dim1=-2, dim2=-1), confusion.sum(-2), confusion.sum(-1)
    return torch.stack([hit, predicted + labelled - hit, predicted, labelled], dim=-2)


def evaluate(
    members: Mapping[str, Evaluated],
    dataset: SeededDataset,
    classes: int,
    batch: int,
    workers: int,
    device: torch.device,
    beat: Callable[[], None] = lambda: None,
    loading: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> dict[str, np.ndarray]:
    """Areas (images, 4, classes) of each member in one pass over the split; train or eval mode is left as it was.

    Every batch has a random stream of its own, for networks that draw numbers even in evaluation; `beat` is called
    after each, and each is loaded within a `loading()`. Several processes divide the images; all get all areas.
    """
    modes = {name: member.network.training for name, member in members.items()}
    areas = {name: np.zeros((len(dataset), 4, classes), np.int64) for name in members}
    preprocessors: dict[Normalisation, Preprocessor] = {
        member.normalisation: Preprocessor(member.normalisation, None, device) for member in members.values()
    }
    for member in members.values():
        distributed.share_buffers(member.network)
    try:
        batches = val_batches(dataset, batch, workers, distributed.part(len(dataset)))
        while True:
            with loading():
                indices, raw = next(batches, ([], {}))
                if not indices:
                    break
                inputs = {key: preprocessor.evaluate(raw) for key, preprocessor in preprocessors.items()}
                labels = torch.stack([sample.gt_sem_seg.data.squeeze(0) for sample in raw["data_samples"]]).to(device)
            for name, member in members.items():
                member.network.eval()
                timed = member.watch.running() if member.watch else nullcontext()
                with timed, torch.no_grad(), stream(0, "evaluate", indices[0]):
                    predictions = predict(member.network, inputs[member.normalisation], labels.shape[1:], member.parts)
                    areas[name][indices] = count_areas(predictions, labels, classes).cpu().numpy()
            beat()
    finally:
        for name, member in members.items():
            member.network.train(modes[name])
    return {name: distributed.summed(counted) for name, counted in areas.items()}
