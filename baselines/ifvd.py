"""Intra-class feature variation distillation: how close each pixel is to the mean of its class."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from benchmark.method import IGNORE, Method, Shapes, Taps
from benchmark.method.grids import labels_on, resize

SMALLEST = 1e-6
"""A feature vector with a smaller norm has no direction, so it gets no gradient from its cosine."""


def intra_class_variation(x: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The cosine between each pixel's feature and the mean feature of its class in its image, (N, H, W).

    The gradient flows through the mean as well. Ignored pixels have no meaningful value. Means and inner products are
    matrix products with all classes at once: no map of a mean per pixel is made, which would be as large as `x`.

    Args:
        x: a map (N, C, H, W), any float type; computed in float32.
        labels: (N, H, W), int64.
        classes: K.
    """
    features = x.float().flatten(2)
    own = labels.where(labels != IGNORE, classes).flatten(1)[:, None]  # ignored pixels are a class of their own
    member = (own == torch.arange(classes + 1, device=own.device)[:, None]).float()
    centres = member @ features.transpose(1, 2) / (member.sum(2, keepdim=True) + 1e-6)
    products = (centres @ features).gather(1, own)
    lengths = centres.norm(dim=2).clamp(min=1e-8).gather(1, own[:, 0])[:, None]
    norms = features.norm(dim=1, keepdim=True)
    cosines = products / (norms.clamp(min=1e-8) * lengths)
    return torch.where(norms > SMALLEST, cosines, cosines.detach()).view_as(labels)


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
    version = 2
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
