"""Intra-class feature variation distillation: how close each pixel is to the mean of its class."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor

from benchmark.blocks import in_blocks
from benchmark.grids import labels_on, resize
from benchmark.method import IGNORE, Method, Shapes, Taps

SMALLEST = 1e-6
"""A feature vector with a smaller norm has no direction, so it gets no gradient from its cosine."""


def class_centres(x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """For each pixel the mean feature of its class in its image, (N, P, C).

    Args:
        x: features (N, P, C), float32.
        labels: (N, P), int64; ignored pixels are a class of their own.
        classes: K.
    """
    n, p, c = x.shape
    index = labels.where(labels != IGNORE, classes)
    sums = x.new_zeros(n, classes + 1, c).scatter_add(1, index[..., None].expand(-1, -1, c), x)
    counts = x.new_zeros(n, classes + 1).scatter_add(1, index, x.new_ones(n, p))
    centres = sums / (counts + 1e-6)[..., None]
    return centres.gather(1, index[..., None].expand(-1, -1, c))


def intra_class_variation(x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The cosine between each pixel's feature and the mean feature of its class in its image, (N, H, W).

    The gradient flows through the mean as well. Ignored pixels have no meaningful value.

    Args:
        x: a map (N, C, H, W), any float type; computed in float32.
        labels: (N, H, W), int64.
        classes: K.
    """

    def cosines(x: Tensor, labels: Tensor) -> Tensor:
        features = x.float().flatten(2).transpose(1, 2)
        centres = class_centres(features, labels.flatten(1), classes)
        directed = features.norm(dim=2, keepdim=True) > SMALLEST
        features = torch.where(directed, features, features.detach())
        return F.cosine_similarity(features, centres, dim=2, eps=1e-8).view_as(labels)

    return in_blocks(cosines, x, labels, elements=x[0].numel())


def variation_kd(student: Tensor, teacher: Tensor, labels: Tensor, classes: int, ignored: str = "keep") -> Tensor:
    """Squared difference of the intra-class variation of two maps, mean over pixels and images.

    Args:
        student: a map (N, C, H, W).
        teacher: a map (N, C', H, W) on the same grid.
        labels: (N, H, W), int64.
        classes: K.
        ignored: `keep`: ignored pixels add 0 and count in the mean; `mask`: they do not count (0 if none does).

    Source: Wang et al., ECCV 2020, eq. 3 and 4; CIRKD `losses/ifvd.py` @2d8ad0f, equal to IFVD @950a7a5.
    """
    valid = labels != IGNORE
    difference = intra_class_variation(student, labels, classes) - intra_class_variation(teacher, labels, classes)
    total = torch.where(valid, difference, 0.0).square().sum()
    return total / (labels.numel() if ignored == "keep" else valid.sum().clamp(min=1))


class IFVD(Method):
    """Intra-class feature variation distillation (Wang et al., ECCV 2020, eq. 3 and 4) on the classifier's input.

    Resize policy: the teacher's map bilinearly to the student's grid; labels nearest to that grid.

    - Paper and its code: next to pixel-wise KD (weight 10, mean over classes too) and a WGAN-GP adversary, weight 200;
      class means per image. Ignored pixels stand for themselves: they add 0 and count in the mean.
    - CIRKD's code: the same term, weight 20, next to KD of weight 1 and a hinge adversary.
    - Here: the term with CIRKD's weight, alone (`ifvd@cirkd` is the whole); features without direction (all zero) get
      no gradient, where the released code gives one of 1e8.
    """

    title = "IFVD"
    source = "Wang et al., ECCV 2020, eq. 3 and 4; weight of winycg/CIRKD @2d8ad0f"
    version = 1
    variants = {"without ignored pixels": {"ignored": "mask"}}
    taps = ("pre_classifier",)

    weight: NonNegativeFloat = 20.0
    ignored: Literal["keep", "mask"] = "keep"

    def build(self, student: Shapes, teacher: Shapes) -> dict:
        """No parts; the number of classes is kept."""
        self.classes = student["logits"].channels
        return {}

    def losses(self, student: Taps, teacher: Taps, target: Tensor, step: int) -> dict[str, Tensor]:
        """`ifvd`, the squared difference of the intra-class variation."""
        f = student["pre_classifier"]
        labels = labels_on(target, f.shape[2:])
        t = resize(teacher["pre_classifier"], f.shape[2:])
        return {"ifvd": self.weight * variation_kd(f, t, labels, self.classes, self.ignored)}
