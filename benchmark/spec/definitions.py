"""Datasets and protocols: data files, and the frozen types they are read into.

A definition's content hash is part of every run id, so a changed file can never answer for old runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from benchmark.core.errors import KdsegError, unknown
from benchmark.core.paths import SPEC
from benchmark.core.schema import Frozen, content_hash, parse, read_yaml
from benchmark.spec.networks import Family

IGNORE = 255
"""The label value of pixels that count nowhere."""
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class SplitLayout(Frozen):
    """Where one split lies below the data root.

    Attributes:
        images, labels: folders; the files may lie in folders below them, of the same names in both.
        names: a text file with one sample name a line (no suffix); None: every image and every label is of the split.
        count: how many samples the official split has.
        official: `names_hash` of the official split's sample names.
    """

    images: str
    labels: str
    names: str | None = None
    count: Positive
    official: str = ""


class Dataset(Frozen):
    """A dataset's classes and layout.

    Attributes:
        layout: `files` (image and label folders below a data root) or `drawn` (made by our generator; no root).
        generator: version of that generator, so that another drawing is another dataset.
        within: folders below the root that a download may have wrapped the files in.
        obtain: where files come from that a plain download does not hold; shown when they are missing.
        label_ids: the numbers by which the official label files name the classes, where those are not 0, 1, ...
        own_labels: folder with labels of some samples that go before those of another source.
        dependent: regular expression for the start of a name; images where it matches the same text depend on each
            other (one block for the bootstrap). The default, the whole name, makes all independent.
    """

    name: str
    title: str
    source: str
    obtain: str = ""
    layout: Literal["files", "drawn"]
    within: tuple[str, ...] = ()
    label_ids: tuple[int, ...] = ()
    own_labels: str = ""
    generator: int | None = None
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    image_suffix: str = ".png"
    label_suffix: str = ".png"
    reduce_zero_label: bool = False
    dependent: str = ".*"
    splits: dict[Literal["train", "val"], SplitLayout]

    def block(self, name: str) -> str:
        """What the images that depend on image `name` have in common."""
        match = re.match(self.dependent, name)
        return match[0] if match else name


class Normalisation(Frozen):
    """What is done to 0-255 pixels before a network sees them; `channels` is the order it expects."""

    channels: Literal["rgb", "bgr"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class DataRecipe(Frozen):
    """What the batches are; runs that agree on it (and on dataset, seed and teacher) can share a cohort.

    Attributes:
        crop: (height, width) in pixels; smaller images are padded after normalisation.
        batch: images per iteration over all devices.
        scale: random scale, drawn uniformly from [low, high].
        scale_step: it is one of low, low + step, ..., high instead.
        base: (long, short) edges that a picture is fitted into before it is scaled, and for evaluation, whose
            prediction is then brought back; None: pictures keep their native size.
        max_class_ratio: a crop with more than this share of one class is drawn again (1: never).
        select_on: what validations look at: the official validation images, or a part of train that is then not
            trained on (`benchmark.data.holdout`), for choosing hyper-parameters.
    """

    crop: tuple[Positive, Positive]
    batch: Positive
    iterations: Positive
    scale: tuple[float, float] = (0.5, 2.0)
    scale_step: Annotated[float, Field(gt=0)] | None = None
    base: tuple[Positive, Positive] | None = None
    flip: Share = 0.5
    photometric: bool = False
    max_class_ratio: Share = 1.0
    select_on: Literal["val", "train-holdout"] = "val"


class OptimRecipe(Frozen):
    """Optimiser and schedule: polynomial decay to `min_lr` after a linear warm-up."""

    optimizer: Literal["SGD", "AdamW"]
    lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    momentum: Share = 0.9
    betas: tuple[Share, Share] = (0.9, 0.999)
    power: float = 0.9
    min_lr: float = 0.0
    warmup: Annotated[int, Field(ge=0)] = 0
    head_lr_factor: Annotated[float, Field(gt=0)] = 1.0
    decay_norm: bool = True
    clip_norm: Annotated[float, Field(gt=0)] | None = None


class TrainingRecipe(Frozen):
    """How one family of networks is trained; `inferred` says what of it no source states, and why we take it."""

    data: DataRecipe
    optim: OptimRecipe
    inferred: str = ""

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.optim.warmup >= self.data.iterations:
            raise ValueError(f"optim.warmup {self.optim.warmup} is not below data.iterations {self.data.iterations}")
        return self


class Protocol(Frozen):
    """What must be equal for two numbers to be comparable.

    Attributes:
        datasets: those it is meant for.
        selection: which weights our primary number comes from.
        published_selection: which weights the numbers come from that were published under it.
        avg_non_ignore: the task loss is a mean over the labelled pixels of the batch, not over all.
        val_interval: iterations between two validations; the last iteration is always validated.
        val_batch: images per forward pass in validation, where sizes allow.
        val_parts: vertical strips that a picture is cut into for validation; their logits are joined, then enlarged.
        recipes: by family of the network that is trained.
        per_dataset: dataset -> family -> what differs there from the family's recipe, such as `data.crop`.
    """

    name: str
    title: str
    source: str
    datasets: tuple[str, ...]
    normalisation: Normalisation
    selection: Literal["last"] = "last"
    published_selection: Literal["last", "best_val", "best_test", "unknown"] = "unknown"
    avg_non_ignore: bool = True
    val_interval: Positive
    val_batch: Positive = 1
    val_parts: Positive = 1
    recipes: dict[Family, TrainingRecipe]
    per_dataset: dict[str, dict[Family, dict[str, Any]]] = {}

    @model_validator(mode="after")
    def _per_dataset_fits(self) -> Self:
        for dataset, changes in self.per_dataset.items():
            if dataset not in self.datasets:
                raise unknown("dataset", dataset, self.datasets, f"protocol {self.name}: per_dataset")
            for family in changes:
                self.recipe(family, dataset)
        return self

    def recipe(self, family: Family, dataset: str) -> TrainingRecipe:
        """The recipe of a family on a dataset.

        Raises:
            KdsegError: this protocol has none for it.
        """
        if family not in self.recipes:
            raise KdsegError(f"protocol {self.name}: has no recipe for {family} networks; add one to its file")
        changes = self.per_dataset.get(dataset, {}).get(family, {})
        return changed(self.recipes[family], changes, f"protocol {self.name}: per_dataset.{dataset}.{family}")


def changed(recipe: TrainingRecipe, changes: dict[str, Any], where: str) -> TrainingRecipe:
    """`recipe` with other values at keys such as `optim.lr`.

    Raises:
        KdsegError: naming `where`: there is no such key (near matches are given), or a value has a wrong type.
    """
    tree = recipe.model_dump(mode="json")
    for dotted, value in changes.items():
        *parents, key = dotted.split(".")
        holder: object = tree
        for part in parents:
            holder = holder.get(part) if isinstance(holder, dict) else None
        if not parents or not isinstance(holder, dict) or key not in holder:
            known = [f"{group}.{name}" for group in ("data", "optim") for name in tree[group]]
            raise unknown("override", dotted, known, where)
        holder[key] = value
    return parse(TrainingRecipe, tree, where)


def names_hash(names: Iterable[str]) -> str:
    """A hash of sample names, in whatever order."""
    return content_hash(sorted(names))


D = TypeVar("D", Dataset, Protocol)


def names(kind: Literal["datasets", "protocols"]) -> list[str]:
    """The names of all definitions of one kind."""
    return sorted(path.stem for path in (SPEC / kind).glob("*.yaml"))


@cache
def dataset(name: str) -> Dataset:
    """The dataset called `name`; an unknown name is an error with near matches."""
    return _load(Dataset, "datasets", name)


@cache
def protocol(name: str) -> Protocol:
    """The protocol called `name`; an unknown name is an error with near matches."""
    return _load(Protocol, "protocols", name)


_SHOWN: dict[str, Any] = {
    "title": True,
    "source": True,
    "obtain": True,
    "dependent": True,
    "within": True,
    "label_ids": True,
    "own_labels": True,
    "published_selection": True,
    "splits": {"train": {"official"}, "val": {"official"}},
    "recipes": {family: {"inferred"} for family in Family},
}
"""What changes no training: texts, where files lie and what they are checked against, how statistics block images."""


def definition_hash(definition: Dataset | Protocol) -> str:
    """What a run id holds of a definition: everything that can change a training.

    Fields at their default are left out, so that a field which is added later changes no old run.
    """
    return content_hash(definition.model_dump(mode="json", exclude=_SHOWN, exclude_defaults=True))


def _load(kind: type[D], folder: Literal["datasets", "protocols"], name: str) -> D:
    if name not in names(folder):
        raise unknown(folder.removesuffix("s"), name, names(folder))
    path = SPEC / folder / f"{name}.yaml"
    definition = parse(kind, read_yaml(path), path.name)
    if definition.name != name:
        raise KdsegError(f"{path.name}: name: is {definition.name!r}, but the file is called {name!r}")
    return definition
