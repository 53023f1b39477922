"""Bringing maps of different stride onto one grid: what the resize policies of the methods are made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """`x` (N, C, h, w) on the grid `size`, bilinear with `align_corners=False`; `x` itself if it is there already.

    In float32. From stride 4 to stride 8 this is the mean of 2x2 cells.
    """
    if x.shape[2:] == size:
        return x
    return F.interpolate(x.float(), size=size, mode="bilinear", align_corners=False)


def labels_on(target: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels (N, H, W) on the coarser grid `size`: nearest, cell i takes the label at floor(i H / h)."""
    (_, height, width), (h, w) = target.shape, size
    rows = torch.arange(h, device=target.device) * height // h
    columns = torch.arange(w, device=target.device) * width // w
    return target[:, rows[:, None], columns]


def pooled(x: Tensor, size: tuple[int, int]) -> Tensor:
    """`x` (N, C, h, w) averaged over the cells of the coarser grid `size`, in float32; `x` itself if it is there."""
    return x if x.shape[2:] == size else F.adaptive_avg_pool2d(x.float(), size)


def coarser(a: Tensor, b: Tensor) -> tuple[int, int]:
    """The coarser of the grids of two maps (N, C, H, W), side by side."""
    return min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])
