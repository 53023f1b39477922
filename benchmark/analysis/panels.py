"""Predictions side by side on images that a rule chooses, not a person (`kdseg analyze panels`)."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmark.analysis.sources import Pupils, Workplace, origin, own
from benchmark.core.errors import KdsegError
from benchmark.core.files import make_folder, write_bytes
from benchmark.data.datasets import SeededDataset, val_batches
from benchmark.data.label_pictures import label_png
from benchmark.models.segmentation import Preprocessor, predict
from benchmark.records.analyses import FOLDER, PanelCell, PanelRow, Panels, write
from benchmark.records.areas import INTERSECT, LABELLED, read_areas, scores
from benchmark.records.record import Record
from benchmark.records.run_directory import RunDirectory
from benchmark.runtime.randomness import stream
from benchmark.spec import definitions
from benchmark.spec.definitions import Dataset
from benchmark.spec.methods import STUDENT
from benchmark.training.evaluation import count_areas
from benchmark.training.teacher import Teacher

_log = logging.getLogger(__name__)

QUANTILES = (0.1, 0.5, 0.9)
"""Where the shown images stand among all, by the per-image mIoU of the student alone: hard, middling, easy."""


@dataclass(frozen=True)
class Sample:
    """One image as the loader gives it, and its labels (H, W)."""

    index: int
    raw: dict[str, list[Any]]
    label: Tensor


def analyze(
    groups: Sequence[Sequence[Pupils]], workplace: Workplace, say: Callable[[str], None] = _log.info
) -> list[Path]:
    """Write `panels_.../panels.json` and its PNGs for each pair of the groups; returns the JSON files.

    A pair is shown with the lowest seed of its student alone, by which the images are chosen.

    Raises:
        KdsegError: no student alone, too few images, or a network or image that cannot be used.
    """
    return [_analyze(pupils, workplace, say) for group in groups for pupils in group]


def quantile_images(mious: Sequence[float], quantiles: Sequence[float] = QUANTILES) -> list[int]:
    """Indices of the images at `quantiles` of their per-image mIoU (nearest rank); equal ones go by their index.

    An image without a number (NaN) has no place.

    Raises:
        ValueError: fewer images with a number than quantiles.
    """
    order = sorted((miou, index) for index, miou in enumerate(mious) if not math.isnan(miou))
    if len(order) < len(quantiles):
        raise ValueError(f"{len(order)} images cannot fill {len(quantiles)} rows")
    return [order[round(quantile * (len(order) - 1))][1] for quantile in quantiles]


def image_mious(directory: RunDirectory) -> list[float]:
    """mIoU of each image on its own, in percent, from a run's areas, over the classes that have a pixel there.

    NaN where no pixel is labelled: such an image says nothing.
    """
    _, areas = read_areas(directory.path / "areas.npz")
    return [scores(image).miou if image[LABELLED].any() else float("nan") for image in areas]


def _analyze(pupils: Pupils, workplace: Workplace, say: Callable[[str], None]) -> Path:
    alone = [record for record in pupils.records if record.inputs.method.name == STUDENT]
    if not alone:
        raise KdsegError(f"{pupils.run.model} on {pupils.run.dataset}: the student alone, which chooses, has no record")
    student = min(alone, key=lambda record: record.inputs.seed)
    run, dataset = student.inputs, definitions.dataset(student.inputs.dataset)
    shown = [record for record in pupils.records if record.inputs.seed == run.seed]
    say(f"{pupils.teacher.model} → {run.model}, seed {run.seed}: teacher and {len(shown)} students")
    images = workplace.images(run)
    chosen = _choose(image_mious(RunDirectory(workplace.work_dir, student.id)), images, student)
    samples = [_sample(images, index, workplace.device) for index in chosen]
    # By its student's id too: two settings of one pair have panels of their own.
    stem = f"panels_{run.dataset}_{run.protocol}_{pupils.teacher.model}_{run.model}_{student.id[:6]}"
    folder = workplace.work_dir / FOLDER / stem
    make_folder(folder)
    cells = [
        _cells(workplace.load(pupils.teacher, run), pupils.teacher.id, pupils, samples, dataset, workplace, folder)
    ]
    for record in shown:
        network = workplace.load(own(record.inputs), record.inputs)
        cells.append(_cells(network, record.id, pupils, samples, dataset, workplace, folder))
    rows = [
        _row(images, sample, quantile, student, dataset, folder, row)
        for sample, quantile, row in zip(samples, QUANTILES, zip(*cells, strict=True), strict=True)
    ]
    content = Panels(origin=origin(run, images), teacher_id=pupils.teacher.id, seed=run.seed, rows=tuple(rows))
    return write(content, folder / "panels.json")


def _choose(mious: Sequence[float], images: SeededDataset, student: Record) -> list[int]:
    where = f"dataset {student.inputs.dataset}"
    if len(images) != len(mious):
        raise KdsegError(f"{where}: {len(images)} images here, but {len(mious)} when {student.id} was validated")
    try:
        return quantile_images(mious)
    except ValueError as error:
        raise KdsegError(f"{where}: {error}") from None


def _sample(images: SeededDataset, index: int, device: torch.device) -> Sample:
    ((_, raw),) = val_batches(images, 1, 0, [index])
    return Sample(index, raw, raw["data_samples"][0].gt_sem_seg.data.squeeze(0).to(device))


def _cells(
    network: Teacher,
    run_id: str,
    pupils: Pupils,
    samples: Sequence[Sample],
    dataset: Dataset,
    workplace: Workplace,
    folder: Path,
) -> list[PanelCell]:
    """What one network predicts for each sample, written as a PNG, with its scores on that image."""
    preprocessor = Preprocessor(network.normalisation, None, workplace.device)
    parts = definitions.protocol(pupils.run.protocol).val_parts
    cells = []
    for number, sample in enumerate(samples):
        with torch.no_grad(), stream(0, "evaluate", sample.index):
            (labels,) = predict(network.network, preprocessor.evaluate(sample.raw), sample.label.shape, parts)
        areas = count_areas(labels, sample.label, len(dataset.classes)).cpu().numpy()
        file = f"{run_id}_{number}.png"
        write_bytes(folder / file, label_png(labels.cpu().numpy().astype(np.uint8), dataset.palette))
        wrong = 100 * (1 - areas[INTERSECT].sum() / areas[LABELLED].sum())
        cells.append(PanelCell(run=run_id, file=file, miou=scores(areas).miou, errors=float(wrong)))
    return cells


def _row(
    images: SeededDataset,
    sample: Sample,
    quantile: float,
    student: Record,
    dataset: Dataset,
    folder: Path,
    cells: Sequence[PanelCell],
) -> PanelRow:
    """The row of one image, its picture and its truth written beside it."""
    number = QUANTILES.index(quantile)
    picture = Image.fromarray(sample.raw["inputs"][0].permute(1, 2, 0).numpy()[..., ::-1].copy())  # BGR to RGB
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_bytes(folder / f"image_{number}.png", buffer.getvalue())
    truth = label_png(sample.label.cpu().numpy().astype(np.uint8), dataset.palette)
    write_bytes(folder / f"truth_{number}.png", truth)
    return PanelRow(
        name=images.names()[sample.index],
        quantile=quantile,
        student=student.id,
        image=f"image_{number}.png",
        truth=f"truth_{number}.png",
        cells=tuple(cells),
    )
