"""How alike students see their images to their teachers: CKA of every pair of taps (`kdseg analyze cka`)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch.nn.functional as F

from benchmark.analysis.sources import Pupils, Workplace, origin, own
from benchmark.core.errors import KdsegError
from benchmark.data.datasets import SeededDataset, val_batches
from benchmark.models.segmentation import Preprocessor
from benchmark.records.analyses import FOLDER, Similarities, Similarity, write
from benchmark.records.record import Record
from benchmark.runtime.randomness import stream
from benchmark.spec.networks import Pair, network
from benchmark.training.teacher import Teacher

_log = logging.getLogger(__name__)

TAPS = ("c1", "c2", "c3", "c4", "pre_classifier", "logits")
GRID = 8
"""Every tap is average-pooled to so many cells per side: students and teachers have grids of different sizes."""
BATCH = 16
"""Images of a mini-batch."""
IMAGES = 256
"""Images looked at, at most: evenly spaced over the split."""

Grams = dict[str, list[np.ndarray]]


def analyze(
    groups: Sequence[Sequence[Pupils]], workplace: Workplace, say: Callable[[str], None] = _log.info
) -> list[Path]:
    """Write `cka_DATASET_PROTOCOL.json` for each group of pairs; returns the files.

    Raises:
        KdsegError: fewer than four images, or a network or image that cannot be used.
    """
    return [_analyze(group, workplace, say) for group in groups]


def mini_batches(count: int, most: int = IMAGES, size: int = BATCH) -> list[list[int]]:
    """Indices of at most `most` of `count` images, evenly spaced, in mini-batches of equal size up to one.

    Each takes every so-manieth image, so that neighbours (frames of one drive) are in different ones.
    """
    chosen = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()
    batches = max(1, len(chosen) // size)
    return [chosen[start::batches] for start in range(batches)]


def network_grams(
    teacher: Teacher, images: SeededDataset, batches: Sequence[Sequence[int]], workplace: Workplace
) -> Grams:
    """Per tap and mini-batch the Gram matrix (n, n) of a network's features, an image being one example."""
    preprocessor = Preprocessor(teacher.normalisation, None, workplace.device)
    grams: Grams = {tap: [] for tap in TAPS}
    for batch in batches:
        features: dict[str, list[np.ndarray]] = {tap: [] for tap in TAPS}
        for indices, raw in val_batches(images, 1, 0, batch):
            with stream(0, "evaluate", indices[0]):
                taps = teacher.taps(preprocessor.evaluate(raw), TAPS)
            for name, tap in taps.items():
                features[name].append(F.adaptive_avg_pool2d(tap, GRID)[0].cpu().numpy())
        for name, values in features.items():
            grams[name].append(gram(np.stack(values)))
    return grams


def _analyze(group: Sequence[Pupils], workplace: Workplace, say: Callable[[str], None]) -> Path:
    run = group[0].run
    images = workplace.images(run)
    if len(images) < FEWEST:
        raise KdsegError(f"dataset {run.dataset}: {len(images)} validation images are too few; CKA needs {FEWEST}")
    batches = mini_batches(len(images))
    students: dict[str, Grams] = {}
    rows = []
    for pupils in group:
        say(f"{pupils.teacher.model} → {pupils.run.model}: {len(pupils.records)} students")
        teacher = network_grams(workplace.load(pupils.teacher, pupils.run), images, batches, workplace)
        for record in pupils.records:
            if record.id not in students:
                student = workplace.load(own(record.inputs), record.inputs)
                students[record.id] = network_grams(student, images, batches, workplace)
            values = {a: {b: _number(cka(teacher[a], students[record.id][b])) for b in TAPS} for a in TAPS}
            rows.append(_row(pupils, record, values))
    content = Similarities(
        origin=origin(run, images), images=sum(map(len, batches)), batch=len(batches[0]), grid=GRID, rows=tuple(rows)
    )
    return write(content, workplace.work_dir / FOLDER / f"cka_{run.dataset}_{run.protocol}.json")


def _row(pupils: Pupils, record: Record, values: dict[str, dict[str, float | None]]) -> Similarity:
    pair, run = Pair(student=network(record.inputs.model), teacher=network(pupils.teacher.model)), record.inputs
    return Similarity(
        run=record.id,
        teacher_id=pupils.teacher.id,
        teacher=pair.teacher.title,
        student=pair.student.title,
        heterogeneous=pair.heterogeneous,
        method=run.method.name,
        variant=run.method.variant,
        seed=run.seed,
        values=values,
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


FEWEST = 4
"""Examples that the unbiased estimator needs at least."""


def gram(features: np.ndarray) -> np.ndarray:
    """Inner products (n, n), float64, of n examples' features (n, ...), flattened and centred.

    A shift of all examples changes no HSIC; without it, large means do not cancel to rounding noise.
    """
    flat = np.asarray(features, dtype=np.float64).reshape(len(features), -1)
    flat = flat - flat.mean(0)
    return flat @ flat.T


def unbiased_hsic(first: np.ndarray, second: np.ndarray) -> float:
    """HSIC_1 of two Gram matrices (n, n) of the same n examples, the unbiased estimator; it may be negative.

    With K̃, L̃ the matrices without their diagonals:
    1/(n(n−3)) · [tr(K̃L̃) + 1ᵀK̃1·1ᵀL̃1/((n−1)(n−2)) − 2/(n−2)·1ᵀK̃L̃1].

    Raises:
        ValueError: the matrices are not square and of one size, or of fewer than `FEWEST` examples.
    """
    n = len(first)
    if first.shape != (n, n) or second.shape != (n, n) or n < FEWEST:
        raise ValueError(f"Gram matrices of one size, {FEWEST} or more, are needed; got {first.shape}, {second.shape}")
    k, h = (matrix - np.diag(np.diag(matrix)) for matrix in (first, second))
    rows_k, rows_h = k.sum(0), h.sum(0)
    trace = float((k * h).sum())
    means = rows_k.sum() * rows_h.sum() / ((n - 1) * (n - 2))
    return float(trace + means - 2 / (n - 2) * (rows_k @ rows_h)) / (n * (n - 3))


def cka(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float:
    """Linear CKA of two sets of features, given as one Gram matrix per mini-batch of the same examples.

    1 for features that are equal up to rotation, reflection and one scale; near 0, of either sign, for independent
    ones. NaN where features are constant over the examples, so that there is nothing to compare.

    Raises:
        ValueError: no mini-batch, another number of them, or a matrix that `unbiased_hsic` refuses.
    """
    if not first or len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} mini-batches: one Gram matrix of each is needed for each")
    # Scaled by size, which CKA does not see: otherwise products of large features overflow.
    first, second = _scaled(first), _scaled(second)
    both = math.fsum(map(unbiased_hsic, first, second))
    own = math.fsum(map(unbiased_hsic, first, first)), math.fsum(map(unbiased_hsic, second, second))
    return both / math.sqrt(own[0] * own[1]) if min(own) > 0 else math.nan


def _scaled(grams: Sequence[np.ndarray]) -> list[np.ndarray]:
    largest = max(float(np.abs(matrix).max()) for matrix in grams)
    return [matrix / largest if largest > 0 else matrix for matrix in grams]
