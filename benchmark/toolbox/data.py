"""Data sets and batches on mmseg's datasets and transforms, with an order and augmentations that need no memory.

Sample `position` of a run is the same whatever came before, however many workers load it, and after any resume.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import pseudo_collate
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import Resize
from mmseg.registry import DATASETS, TRANSFORMS
from torch.utils.data import DataLoader, Sampler

from benchmark.definitions import DataRecipe, Dataset
from benchmark.errors import KdsegError
from benchmark.frozen import content_hash
from benchmark.randomness import derive_seed, stream
from benchmark.toolbox import drawn

Split = Literal["train", "val"]


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
    """Scales picture and labels by a factor drawn uniformly from [low, high] of the picture's own size."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        factor = random.uniform(self.low, self.high)
        return Resize(scale_factor=factor, keep_ratio=True)(results)


@DATASETS.register_module()
class SeededDataset(BaseSegDataset):
    """A split whose samples are asked for as (position, index); augmentation draws from the stream of both.

    Args:
        definition: classes and layout.
        split: its split.
        data_root: where its files are; None for the drawn set.
        seed: of the augmentation.
        pipeline: transforms after loading.
    """

    def __init__(
        self, definition: Dataset, split: Split, data_root: Path | None, seed: int, pipeline: list[dict[str, Any]]
    ) -> None:
        self.definition, self.split, self.seed = definition, split, seed
        self.root = data_root
        super().__init__(
            metainfo={"classes": definition.classes, "palette": [list(colour) for colour in definition.palette]},
            pipeline=pipeline,
            reduce_zero_label=definition.reduce_zero_label,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry a sample, checked to exist."""
        common = {"label_map": None, "reduce_zero_label": self.reduce_zero_label}
        if self.definition.layout == "drawn":
            return [
                dict(img_path=f"{self.split}/{index:05d}", split=self.split, index=index, seg_fields=[], **common)
                for index in range(self.definition.splits[self.split].count)
            ]
        return [
            dict(img_path=str(image), seg_map_path=str(label), seg_fields=[], **common)
            for image, label in _pairs(self.definition, self.split, self.root)
        ]

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, Any]:
        position, index = key if isinstance(key, tuple) else (key, key)
        with stream(self.seed, "sample", position, index):
            return super().__getitem__(index)

    def names(self) -> list[str]:
        """The samples' names, in order, without folders and suffixes."""
        return [Path(self.get_data_info(index)["img_path"]).stem for index in range(len(self))]

    def list_hash(self) -> str:
        """A hash of the split's sample names in order: which images these were."""
        return content_hash(self.names())


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
            epoch, place = divmod(position, self.size)
            if epoch != loaded:
                generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
                order, loaded = torch.randperm(self.size, generator=generator).tolist(), epoch
            yield position, order[place]


def train_dataset(definition: Dataset, recipe: DataRecipe, data_root: Path | None, seed: int) -> SeededDataset:
    """The training split under a data recipe."""
    pipeline = [
        *_loading(definition),
        {"type": "ScaleNative", "low": recipe.scale[0], "high": recipe.scale[1]},
        {"type": "RandomCrop", "crop_size": recipe.crop, "cat_max_ratio": recipe.max_class_ratio},
        {"type": "RandomFlip", "prob": recipe.flip},
        *([{"type": "PhotoMetricDistortion"}] if recipe.photometric else []),
        {"type": "PackSegInputs"},
    ]
    return SeededDataset(definition, "train", data_root, seed, pipeline)


def val_dataset(definition: Dataset, data_root: Path | None, split: Split = "val") -> SeededDataset:
    """A split for evaluation: whole pictures at their own size."""
    return SeededDataset(definition, split, data_root, 0, [*_loading(definition), {"type": "PackSegInputs"}])


def train_batches(
    dataset: SeededDataset, batch: int, start: int, workers: int, rank: int = 0, world: int = 1
) -> Iterator[dict[str, list[Any]]]:
    """Endless batches from iteration `start` on: `inputs` (uint8, 3×H×W each) and `data_samples`."""
    sampler = EndlessSampler(len(dataset), dataset.seed, start * batch, rank, world)
    return iter(_loader(dataset, sampler, batch // world, workers))


def val_batches(dataset: SeededDataset, batch: int, workers: int) -> Iterator[tuple[list[int], dict[str, list[Any]]]]:
    """The split in order, as (sample indices, batch): neighbours of equal size share a batch of at most `batch`."""
    samples = enumerate(iter(_loader(dataset, range(len(dataset)), 1, workers)))
    for _, group in itertools.groupby(samples, key=lambda pair: pair[1]["inputs"][0].shape):
        while part := list(itertools.islice(group, batch)):
            indices, loaded = zip(*part, strict=True)
            yield (
                list(indices),
                {key: [single[key][0] for single in loaded] for key in ("inputs", "data_samples")},
            )


def _loader(dataset: SeededDataset, sampler: Any, batch: int, workers: int) -> DataLoader:
    return DataLoader(
        dataset, batch_size=batch, sampler=sampler, num_workers=workers, collate_fn=pseudo_collate,
        worker_init_fn=_one_thread, generator=torch.Generator(), pin_memory=torch.cuda.is_available(),
    )  # fmt: skip


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def _loading(definition: Dataset) -> list[dict[str, Any]]:
    if definition.layout == "drawn":
        return [{"type": "DrawScene"}]
    return [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]


def _pairs(definition: Dataset, split: Split, root: Path | None) -> list[tuple[Path, Path]]:
    """Image and label paths of a split, checked to exist.

    Raises:
        KdsegError: no root given, root or folder missing or empty, an image without label or the other way round.
    """
    if root is None:
        raise KdsegError(f"dataset {definition.name}: needs its files; pass --data-root DIR")
    if not root.is_dir():
        raise KdsegError(
            f"data root {root}: no such folder; pass the folder that holds {definition.name} as --data-root"
        )
    layout = definition.splits[split]
    images, labels = root / layout.images, root / layout.labels
    for folder in (images, labels):
        if not folder.is_dir() or not any(os.scandir(folder)):
            raise KdsegError(
                f"data root {root}: {folder.relative_to(root)} is missing or empty; expected {definition.title}"
            )
    if layout.names:
        file = root / layout.names
        if not file.is_file():
            raise KdsegError(f"data root {root}: the list {layout.names} is missing")
        names = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    else:
        names = sorted(
            path.name.removesuffix(definition.image_suffix) for path in images.glob("*" + definition.image_suffix)
        )
    pairs = [(images / (n + definition.image_suffix), labels / (n + definition.label_suffix)) for n in names]
    missing = [path for pair in pairs for path in pair if not path.is_file()]
    if missing or not pairs:
        count = (
            f"{len(missing)} files of the {split} split are missing, first {missing[0]}"
            if missing
            else f"{split} is empty"
        )
        raise KdsegError(f"data root {root}: {count}")
    return pairs
