"""Networks as they are handed on: plain mmseg config and checkpoint, written from a run and read from anyone.

A config that a user names is Python and is executed, mmengine's way. One that is only found beside a checkpoint is read
as data: literals, lists and `dict(...)`, no statement of it is run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine import Config, ConfigDict
from mmseg.datasets.transforms import PackSegInputs
from mmseg.models import BaseSegmentor, SegDataPreProcessor
from mmseg.registry import MODELS, TRANSFORMS
from torch import Tensor

from benchmark.core.errors import KdsegError
from benchmark.models.build import build_network, network_config
from benchmark.runtime.randomness import stream
from benchmark.spec.definitions import Dataset, Normalisation

LOADERS = ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")
"""What a test pipeline does besides changing the picture."""


@dataclass
class Deployed:
    """A network, and all that is done to a picture before it sees one.

    Attributes:
        preprocessor: normalises and, if its config says so, pads.
        classes: how many it tells apart.
        transforms: what its test pipeline does to a picture between loading and packing (a `Resize`, say).
        batch: pictures per forward pass in evaluation.
        dataset: our name of the data set it was trained on, where known.
    """

    network: BaseSegmentor
    preprocessor: SegDataPreProcessor
    classes: int
    transforms: list[Callable[[dict[str, Any]], dict[str, Any]]] = field(default_factory=list)
    batch: int = 1
    dataset: str | None = None

    @property
    def normalisation(self) -> Normalisation | None:
        """What is done to pixels, if that is all that is done and predictions are plain maxima; else None."""
        module = self.preprocessor
        outputs = getattr(self.network, "out_channels", self.classes)
        if self.transforms or module.test_cfg or outputs != self.classes:
            return None
        normalises = module._enable_normalize
        mean = module.mean.flatten().tolist() if normalises else [0.0] * 3
        std = module.std.flatten().tolist() if normalises else [1.0] * 3
        if len(mean) != 3 or len(std) != 3:
            return None
        channels = "rgb" if module._channel_conversion else "bgr"
        return Normalisation(channels=channels, mean=tuple(mean), std=tuple(std))

    def to(self, device: torch.device) -> Deployed:
        """Itself, on a device and in eval mode."""
        self.network.to(device).eval()
        self.preprocessor.to(device)
        return self

    def labels(self, image: np.ndarray) -> Tensor:
        """The classes (H, W), int64, that mmseg predicts for one picture (H, W, 3), BGR, uint8, at its own size."""
        results = {"img": image, "img_shape": image.shape[:2], "ori_shape": image.shape[:2]}
        for transform in self.transforms:
            results = transform(results)
        packed = PackSegInputs()(results)
        data = self.preprocessor({key: [value] for key, value in packed.items()}, False)
        with torch.no_grad(), stream(0, "evaluate", 0):
            (sample,) = self.network.predict(data["inputs"], data["data_samples"])
        return sample.pred_sem_seg.data.squeeze(0).long()


def of_model(name: str, classes: int, normalisation: Normalisation, batch: int = 1) -> Deployed:
    """One of our networks; its weights are still to be loaded."""
    preprocessor = SegDataPreProcessor(
        mean=normalisation.mean, std=normalisation.std, bgr_to_rgb=normalisation.channels == "rgb"
    )
    return Deployed(build_network(name, classes), preprocessor, classes, batch=batch)


def of_config(file: Path, trusted: bool) -> Deployed:
    """The network of an mmseg config; its weights are still to be loaded.

    Args:
        file: the config.
        trusted: whether it may be executed; else it is read as data.

    Raises:
        KdsegError: it cannot be read, is more than data, or describes no network that can be built here.
    """
    config = _executed(file) if trusted else ConfigDict(read_as_data(file))
    try:
        model = config["model"]
        model.update(pretrained=None, train_cfg=None)
        if "backbone" in model:
            model["backbone"].pop("init_cfg", None)
        network = MODELS.build(model)
        transforms = [
            TRANSFORMS.build(step) for step in _test_pipeline(config) if step["type"].split(".")[-1] not in LOADERS
        ]
        classes, preprocessor = network.num_classes, network.data_preprocessor
    except Exception as error:
        message = (str(error).splitlines() or [""])[0][:160]
        raise KdsegError(f"{file}: no network can be built from it: {type(error).__name__}: {message}") from None
    if not isinstance(preprocessor, SegDataPreProcessor):
        raise KdsegError(f"{file}: model.data_preprocessor is missing, so nobody knows how it wants its pixels")
    about = config.get("kdseg", {})
    return Deployed(network, preprocessor, classes, transforms, int(about.get("val_batch", 1)), about.get("dataset"))


def config_text(model: str, dataset: Dataset, normalisation: Normalisation, about: Mapping[str, Any]) -> str:
    """The mmseg config of one of our networks for `dataset`, as Python text that is data throughout.

    It has the network with its normalisation, the test pipeline (whole pictures at their own size), and for a data set
    with files the stock `BaseSegDataset` of its validation split below `data/NAME`, with mmseg's `IoUMetric`.

    Args:
        about: where the network comes from, kept under `kdseg`; mmseg does not read it.
    """
    network = network_config(model, len(dataset.classes))
    # `size` is read in training only; in tests pictures stay as they are
    network["data_preprocessor"] = {
        "type": "SegDataPreProcessor",
        "mean": list(normalisation.mean),
        "std": list(normalisation.std),
        "bgr_to_rgb": normalisation.channels == "rgb",
        "pad_val": 0,
        "seg_pad_val": 255,
    }
    pipeline = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]
    content: dict[str, Any] = {
        "default_scope": "mmseg",
        "kdseg": dict(about),
        "model": network,
        "test_pipeline": pipeline,
    }
    if dataset.layout == "files":
        for split in ("val", "test"):
            content[f"{split}_dataloader"] = _dataloader(dataset, pipeline)
            content[f"{split}_evaluator"] = {"type": "IoUMetric", "iou_metrics": ["mIoU"]}
            content[f"{split}_cfg"] = {"type": f"{split.title()}Loop"}
    return Config(content).pretty_text


def read_as_data(file: Path) -> dict[str, Any]:
    """The assignments of a config that is nothing but data; nothing of it is executed.

    Raises:
        KdsegError: it cannot be read, holds anything else, or names a class by its import path.
    """
    assignments = {}
    try:
        for statement in ast.parse(file.read_text(encoding="utf-8")).body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if name != "_base_":
                    assignments[name] = _value(value)
                case ast.Expr(value=ast.Constant()):
                    pass
                case _:
                    raise _NotData(statement)
    except _NotData as error:
        raise KdsegError(
            f"{file}: is more than data (line {error.line}) and was not run; if you trust it, pass it with --config"
        ) from None
    except (OSError, SyntaxError, ValueError, TypeError, RecursionError) as error:
        raise KdsegError(f"{file}: cannot be read as a config: {type(error).__name__}: {error}") from None
    return assignments


def _executed(file: Path) -> Config:
    if not file.is_file():
        raise KdsegError(f"--config {file}: no such file")
    try:
        return Config.fromfile(file)
    except Exception as error:
        message = (str(error).splitlines() or [""])[0][:160]
        raise KdsegError(f"--config {file}: cannot be read: {type(error).__name__}: {message}") from None


def _test_pipeline(config: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    if "test_pipeline" in config:
        return config["test_pipeline"]
    return config["test_dataloader"]["dataset"]["pipeline"] if "test_dataloader" in config else ()


def _dataloader(dataset: Dataset, pipeline: list[dict[str, Any]]) -> dict[str, Any]:
    split = dataset.splits["val"]
    stock = {
        "type": "BaseSegDataset",
        "data_root": f"data/{dataset.name}",
        "data_prefix": {"img_path": split.images, "seg_map_path": split.labels},
        "ann_file": split.names or "",
        "img_suffix": dataset.image_suffix,
        "seg_map_suffix": dataset.label_suffix,
        "reduce_zero_label": dataset.reduce_zero_label,
        "metainfo": {"classes": list(dataset.classes), "palette": [list(colour) for colour in dataset.palette]},
        "pipeline": pipeline,
        "test_mode": True,
    }
    return {
        "batch_size": 1,
        "num_workers": 2,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "dataset": stock,
    }


class _NotData(Exception):
    """A part of a config that would have to be executed."""

    def __init__(self, node: ast.stmt | ast.expr) -> None:
        super().__init__("not data")
        self.line = node.lineno


def _value(node: ast.expr) -> Any:
    """The value of a literal, where `dict(a=1)` is one too; class names must be plain, for mmengine imports others."""
    match node:
        case ast.Dict(keys=keys, values=values) if None not in keys:
            mapping = {_value(key): _value(value) for key, value in zip(keys, values, strict=True) if key}
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=pairs) if all(pair.arg for pair in pairs):
            mapping = {pair.arg: _value(pair.value) for pair in pairs}
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case _:
            try:
                return ast.literal_eval(node)
            except ValueError:
                raise _NotData(node) from None
    if not re.fullmatch(r"\w+", str(mapping.get("type", "plain"))):
        raise _NotData(node)
    return mapping
