"""Predicted classes of a folder of pictures, as PNGs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmark.core.errors import KdsegError
from benchmark.core.files import make_folder, write_bytes
from benchmark.data.label_pictures import label_png
from benchmark.data.loading import read_image
from benchmark.deploy.load import Loaded

Format = Literal["labels", "palette", "cityscapes"]
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The labelIds of Cityscapes' 19 training classes: what its server expects."""


def predict_folder(
    loaded: Loaded, images: Path, out: Path, kind: Format, palette: Any, device: torch.device
) -> tuple[int, list[KdsegError]]:
    """Write a PNG for every picture below `images`, under the same name below `out`.

    Returns:
        How many were written, and the errors of those that could not be read.

    Raises:
        KdsegError: nothing to do, names that collide, or classes that the format cannot hold.
    """
    _check_format(loaded, kind, palette)
    targets = _targets(images, out)
    deployed, faults = loaded.deployed.to(device), []
    for file, target in targets.items():
        try:
            image = read_image(file)
        except KdsegError as error:
            faults.append(error)
            continue
        labels = deployed.labels(image).cpu().numpy().astype(np.uint8)
        make_folder(target.parent)
        if kind == "cityscapes":
            labels = to_label_ids(labels)
        write_bytes(target, label_png(labels, palette if kind == "palette" else ()))
    return len(targets) - len(faults), faults


def to_label_ids(labels: np.ndarray) -> np.ndarray:
    """Cityscapes' labelIds (H, W), uint8, of train ids."""
    return np.array(CITYSCAPES_IDS, np.uint8)[labels]


def _check_format(loaded: Loaded, kind: Format, palette: Any) -> None:
    classes = loaded.deployed.classes
    if classes > 255:
        raise KdsegError(f"{loaded.file}: tells {classes} classes apart; 8-bit PNGs hold at most 255")
    if kind == "cityscapes" and classes != len(CITYSCAPES_IDS):
        raise KdsegError(f"--format cityscapes: needs Cityscapes' 19 classes; {loaded.file} has {classes}")
    if kind == "palette" and len(palette or ()) != classes:
        raise KdsegError(f"--format palette: {loaded.file} names no colours for {classes} classes; pass --dataset NAME")


def _targets(images: Path, out: Path) -> dict[Path, Path]:
    """Where the PNG of each picture goes; two pictures never share one."""
    if not images.is_dir():
        raise KdsegError(f"--images {images}: no such folder")
    if out.resolve().is_relative_to(images.resolve()):
        raise KdsegError(f"--out {out}: lies in the folder of the images; name another place")
    files = sorted(file for file in images.rglob("*") if file.suffix.lower() in IMAGES and file.is_file())
    if not files:
        raise KdsegError(f"--images {images}: holds no images ({' '.join(IMAGES)})")
    targets: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for file in files:
        target = out / file.relative_to(images).with_suffix(".png")
        if target in taken:
            raise KdsegError(f"{file}: would be written as {target}, as {taken[target]} would; rename one")
        targets[file], taken[target] = target, file
    return targets
