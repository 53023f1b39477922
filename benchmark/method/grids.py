"""Bringing maps of different stride onto one grid: what the resize policies of the methods are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.method import IGNORE

Size = tuple[int, ...]
"""Height and width: `x.shape[2:]` of a map (N, C, H, W) is one."""


class Forms:
    """Tensors that several runs read, and each one's forms on other grids, made when first asked for."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.tensors = {id(x): x for x in tensors}
        self.made: dict[tuple[int, str, Size], Tensor] = {}
        self.versions: dict[int, int] = {key: x._version for key, x in self.tensors.items()}

    def get(self, x: Tensor, how: str, size: Size, make: Callable[[], Tensor]) -> Tensor:
        """The form of `x` on grid `size`; made anew each time for a tensor that is not one of these."""
        if id(x) not in self.tensors:
            return make()
        key = id(x), how, tuple(size)
        if key not in self.made:
            form = self.made[key] = make()
            self.versions[id(form)] = form._version
        return self.made[key]

    def damaged(self) -> bool:
        """Whether somebody wrote into one of them."""
        return any(x._version != self.versions[id(x)] for x in (*self.tensors.values(), *self.made.values()))


_FORMS: ContextVar[Forms | None] = ContextVar("forms", default=None)


@contextmanager
def sharing(tensors: Iterable[Tensor]) -> Iterator[Forms]:
    """Within it, `resize` and `pooled` bring each of these tensors onto a grid only once.

    For what carries no gradient: the teacher's taps, of which all runs of a cohort ask for much the same forms.
    """
    forms = Forms(tensors)
    token = _FORMS.set(forms)
    try:
        yield forms
    finally:
        _FORMS.reset(token)


def _shared(x: Tensor, how: str, size: Size, make: Callable[[], Tensor]) -> Tensor:
    forms = _FORMS.get()
    return make() if forms is None else forms.get(x, how, size, make)


def resize(x: Tensor, size: Size) -> Tensor:
    """`x` (N, C, h, w) on the grid `size`, bilinear with `align_corners=False`; `x` itself if it is there already.

    In float32. From stride 4 to stride 8 this is the mean of 2x2 cells.
    """
    if x.shape[2:] == size:
        return x
    return _shared(
        x, "resized", size, lambda: F.interpolate(x.float(), size=size, mode="bilinear", align_corners=False)
    )


def labels_on(target: Tensor, size: Size) -> Tensor:
    """Labels (N, H, W) on the coarser grid `size`: nearest, cell i takes the label at floor(i H / h)."""
    (_, height, width), (h, w) = target.shape, size
    rows = torch.arange(h, device=target.device) * height // h
    columns = torch.arange(w, device=target.device) * width // w
    return target[:, rows[:, None], columns]


def labelled_mean(x: Tensor, labels: Tensor) -> Tensor:
    """The mean of `x` (N, h, w) over the pixels whose label (N, h, w) is not `IGNORE`; 0 if all are ignored.

    `where` and not a boolean index: picking pixels would make the host wait for the device, and a mean of none is NaN.
    """
    valid = labels != IGNORE
    return torch.where(valid, x, 0.0).sum() / valid.sum().clamp(min=1)


def pooled(x: Tensor, size: Size) -> Tensor:
    """`x` (N, C, h, w) averaged over the cells of the coarser grid `size`, in float32; `x` itself if it is there."""
    if x.shape[2:] == size:
        return x
    return _shared(x, "pooled", size, lambda: F.adaptive_avg_pool2d(x.float(), (size[0], size[1])))


def coarser(a: Tensor, b: Tensor) -> tuple[int, int]:
    """The coarser of the grids of two maps (N, C, H, W), side by side."""
    return min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])
