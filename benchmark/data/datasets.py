"""Data sets and batches on mmseg's datasets and transforms, with an order and augmentations that need no memory.

Sample `position` of a run is the same whatever came before, however many workers load it, and after any resume.
"""

from __future__ import annotations

import itertools
import random
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import pseudo_collate
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import Resize
from mmseg.registry import DATASETS, TRANSFORMS
from torch.utils.data import DataLoader, Sampler

from benchmark.core.errors import KdsegError
from benchmark.core.schema import content_hash
from benchmark.data import drawn, holdout
from benchmark.data.layouts import Split, find_pairs
from benchmark.data.loading import LoadSample
from benchmark.runtime import openmmlab  # noqa: F401  (registers mmseg's transforms)
from benchmark.runtime.randomness import derive_seed, stream
from benchmark.spec.definitions import DataRecipe, Dataset


@TRANSFORMS.register_module()
class DrawScene(BaseTransform):
    """Loads a sample of the drawn set: picture (BGR, as mmcv's loader gives it) and labels."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        image, labels = drawn.draw_scene(results["split"], results["index"])
        results["img"], results["gt_seg_map"] = image[..., ::-1].copy(), labels
        results["img_shape"] = results["ori_shape"] = labels.shape
        results["seg_fields"].append("gt_seg_map")
        return results


@TRANSFORMS.register_module()
class ScaleNative(BaseTransform):
    """Scales picture and labels by a factor of the picture's own size.

    Drawn uniformly from [low, high], or from low, low + step, ..., high if there is a step.
    """

    def __init__(self, low: float, high: float, step: float | None = None) -> None:
        self.low, self.high, self.step = low, high, step

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        if self.step is None:
            factor = random.uniform(self.low, self.high)
        else:
            factor = self.low + self.step * random.randint(0, round((self.high - self.low) / self.step))
        return Resize(scale_factor=factor, keep_ratio=True)(results)


@TRANSFORMS.register_module()
class FitPicture(BaseTransform):
    """Fits the picture into (long, short) edges and keeps its ratio; labels keep their size, as in mmseg's tests."""

    def __init__(self, base: tuple[int, int]) -> None:
        self.resize = Resize(scale=base, keep_ratio=True)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        fields, results["seg_fields"] = results["seg_fields"], []
        results = self.resize(results)
        results["seg_fields"] = fields
        return results


@dataclass(frozen=True)
class Fault:
    """What is wrong with a sample. A loading process returns it: raised there, it would arrive with a traceback."""

    said: str


@DATASETS.register_module()
class SeededDataset(BaseSegDataset):
    """A split whose samples are asked for as (position, index); augmentation draws from the stream of both.

    Args:
        definition: classes and layout.
        split: its split.
        data_root: where its files are; None for the drawn set.
        seed: of the augmentation.
        pipeline: transforms after loading.
        part: all of the split, what is left of it to train on, or what is held out (`benchmark.data.holdout`).

    Attributes:
        found: how many samples the whole split has here.
    """

    def __init__(
        self,
        definition: Dataset,
        split: Split,
        data_root: Path | None,
        seed: int,
        pipeline: list[dict[str, Any]],
        part: Literal["all", "rest", "held out"] = "all",
    ) -> None:
        self.definition, self.split, self.seed = definition, split, seed
        self.root, self.part = data_root, part
        super().__init__(
            metainfo={"classes": definition.classes, "palette": [list(colour) for colour in definition.palette]},
            pipeline=pipeline,
            reduce_zero_label=definition.reduce_zero_label,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry a sample, checked to exist."""
        entries = self._whole_split()
        self.found = len(entries)
        if self.part == "all":
            return entries
        rest, held = holdout.cut([entry["name"] for entry in entries], self.definition.block)
        names = set(rest if self.part == "rest" else held)
        return [entry for entry in entries if entry["name"] in names]

    def _whole_split(self) -> list[dict[str, Any]]:
        common = {"seg_fields": [], "label_map": None, "reduce_zero_label": self.reduce_zero_label}
        if self.definition.layout == "drawn":
            names = [f"{index:05d}" for index in range(self.definition.splits[self.split].count)]
            return [
                dict(name=name, img_path=f"{self.split}/{name}", split=self.split, index=index, **common)
                for index, name in enumerate(names)
            ]
        return [
            dict(name=pair.name, img_path=str(pair.image), seg_map_path=str(pair.label), **common)
            for pair in find_pairs(self.definition, self.split, self.root)
        ]

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, Any] | Fault:
        position, index = key if isinstance(key, tuple) else (key, key)
        try:
            with stream(self.seed, "sample", position, index):
                return super().__getitem__(index)
        except KdsegError as error:
            return Fault(str(error))

    def names(self) -> list[str]:
        """The samples' names, in order, without folders and suffixes."""
        return [self.get_data_info(index)["name"] for index in range(len(self))]

    def list_hash(self) -> str:
        """A hash of the split's sample names in order, and of each image's size in bytes: which images these were."""
        if self.definition.layout == "drawn":
            return content_hash(self.names())
        files = [Path(self.get_data_info(index)["img_path"]) for index in range(len(self))]
        return content_hash([self.names(), [file.stat().st_size for file in files]])


class EndlessSampler(Sampler):
    """Yields (position, index) from a start position on; each epoch is a permutation of (seed, epoch) alone.

    Rank r of w takes positions r, r + w, ...
    """

    def __init__(self, size: int, seed: int, start: int = 0, rank: int = 0, world: int = 1) -> None:
        self.size, self.seed, self.start, self.rank, self.world = size, seed, start, rank, world

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order: list[int] = []
        loaded = None
        for position in itertools.count(self.start + self.rank, self.world):
            epoch, index = divmod(position, self.size)
            if epoch != loaded:
                generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
                order, loaded = torch.randperm(self.size, generator=generator).tolist(), epoch
            yield position, order[index]


def train_dataset(definition: Dataset, recipe: DataRecipe, data_root: Path | None, seed: int) -> SeededDataset:
    """The training images under a data recipe."""
    low, high = recipe.scale
    scale: dict[str, Any] = {"type": "ScaleNative", "low": low, "high": high, "step": recipe.scale_step}
    if recipe.base:
        scale = {"type": "RandomResize", "scale": recipe.base, "ratio_range": recipe.scale, "keep_ratio": True}
    pipeline = [
        *_loading(definition),
        scale,
        {"type": "RandomCrop", "crop_size": recipe.crop, "cat_max_ratio": recipe.max_class_ratio},
        {"type": "RandomFlip", "prob": recipe.flip},
        *([{"type": "PhotoMetricDistortion"}] if recipe.photometric else []),
        {"type": "PackSegInputs"},
    ]
    return SeededDataset(definition, "train", data_root, seed, pipeline, "rest" if recipe.select_on != "val" else "all")


def val_dataset(
    definition: Dataset, data_root: Path | None, split: Split = "val", recipe: DataRecipe | None = None
) -> SeededDataset:
    """Whole pictures for evaluation, with labels of their own size.

    Args:
        definition, data_root: the dataset.
        split: which images, where `recipe` does not hold out some to look at instead.
        recipe: may fit pictures into a base size; None: they keep their own.
    """
    fit = [{"type": "FitPicture", "base": recipe.base}] if recipe and recipe.base else []
    pipeline = [*_loading(definition), *fit, {"type": "PackSegInputs"}]
    if recipe and recipe.select_on != "val":
        return SeededDataset(definition, "train", data_root, 0, pipeline, "held out")
    return SeededDataset(definition, split, data_root, 0, pipeline)


def train_batches(
    dataset: SeededDataset, batch: int, start: int, workers: int, rank: int = 0, world: int = 1
) -> Iterator[dict[str, list[Any]]]:
    """Endless batches from iteration `start` on: `inputs` (uint8, 3×H×W each) and `data_samples`.

    `batch` is that of all `world` processes, which divide it evenly.

    Raises:
        KdsegError: while iterating: a sample that cannot be used, or a loading process that died.
    """
    sampler = EndlessSampler(len(dataset), dataset.seed, start * batch, rank, world)
    return _loaded(dataset, sampler, batch // world, workers)


def val_batches(
    dataset: SeededDataset, batch: int, workers: int, order: Sequence[int] | None = None
) -> Iterator[tuple[list[int], dict[str, list[Any]]]]:
    """Samples in order, as (sample indices, batch): neighbours of equal size share a batch of at most `batch`.

    Args:
        dataset, batch, workers: what is loaded, and how.
        order: indices of the samples; None: the whole split.

    Raises:
        KdsegError: while iterating: a sample that cannot be used, or a loading process that died.
    """
    order = range(len(dataset)) if order is None else order
    samples = zip(order, _loaded(dataset, order, 1, workers), strict=True)
    for _, group in itertools.groupby(samples, key=lambda pair: _sizes(pair[1])):
        while part := list(itertools.islice(group, batch)):
            indices, loaded = zip(*part, strict=True)
            yield (
                list(indices),
                {key: [single[key][0] for single in loaded] for key in ("inputs", "data_samples")},
            )


def _sizes(loaded: dict[str, list[Any]]) -> tuple[torch.Size, torch.Size]:
    return loaded["inputs"][0].shape, loaded["data_samples"][0].gt_sem_seg.data.shape


def _loaded(dataset: SeededDataset, sampler: Any, batch: int, workers: int) -> Iterator[dict[str, list[Any]]]:
    """The loader's batches; a fault is raised here, in the main process, after its workers ended."""
    loader: DataLoader[dict[str, Any] | Fault] = DataLoader(
        dataset,
        batch_size=batch,
        sampler=sampler,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_one_thread,
        generator=torch.Generator(),
        pin_memory=torch.cuda.is_available(),
    )
    try:
        for loaded in _without_interrupts(loader):
            if isinstance(loaded, Fault):
                break  # leaving the loop drops the loader's iterator, which ends the workers
            yield loaded
        else:
            return
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):  # torch says so of a dead one; a bug in a worker is no such case
            raise
        raise KdsegError(
            "data loading: a worker process was killed or ran out of memory; use fewer --workers, or 0"
        ) from None
    raise KdsegError(loaded.said)


def _without_interrupts(loader: DataLoader) -> Iterator[Any]:
    """The loader's iterator, without the signal handler by which torch reports a dead worker.

    That handler raises wherever the main process happens to be, so that a method would be blamed for it. Without it
    the death is noticed (after seconds) where the worker's next batch is awaited.
    """
    handler = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, handler)
    return iterator


def _collate(samples: list[dict[str, Any] | Fault]) -> dict[str, list[Any]] | Fault:
    return next((sample for sample in samples if isinstance(sample, Fault)), None) or pseudo_collate(samples)


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def _loading(definition: Dataset) -> list[dict[str, Any]]:
    if definition.layout == "drawn":
        return [{"type": "DrawScene"}]
    return [
        {
            "type": LoadSample,
            "dataset": definition.name,
            "classes": len(definition.classes),
            "reduce_zero_label": definition.reduce_zero_label,
            "label_ids": definition.label_ids,
        }
    ]
