"""Pixel-wise knowledge distillation: the student imitates the teacher's class distribution at every pixel."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from benchmark.method import IGNORE, Method, Taps
from benchmark.method.blocks import sum_in_blocks
from benchmark.method.grids import labels_on, resize

Reduction = Literal["pixel", "element", "skd_original"]
"""How the per-pixel terms become one number: see `pixel_kd`."""


def pixel_kd(
    student: Tensor,
    teacher: Tensor,
    tau: float = 1.0,
    reduction: Reduction = "pixel",
    valid: Tensor | None = None,
) -> Tensor:
    """Divergence of the student's class distribution from the teacher's, over the pixels.

    With p = softmax(teacher / tau) and q = softmax(student / tau) over the K classes of a pixel, `reduction` is

    - `pixel`: tau^2 KL(p || q), mean over pixels and images;
    - `element`: KL(p || q), divided by the number of pixels, images *and classes*; no tau^2;
    - `skd_original`: cross-entropy -p log q, divided by H W only: it grows with the batch, and is not 0 where p = q.

    Args:
        student: logits (N, K, H, W), any float type; computed in float32.
        teacher: logits (N, K, H, W).
        tau: temperature.
        reduction: as above.
        valid: pixels that count, (N, H, W) bool; the others add nothing, and `pixel` and `element` divide by the
            number of those that count (the result is 0 where none does). None: all count.

    Source: Hinton et al. 2015, eq. 1; as code `pixel` CIRKD `losses/kd.py` @2d8ad0f, `element` IFVD
    `utils/criterion.py` @950a7a5, `skd_original` SKD `utils/criterion.py` @ce208e1.
    """
    n, k, h, w = student.shape

    def divergence(z: Tensor, z_t: Tensor, valid: Tensor | None = None) -> Tensor:
        log_p = F.log_softmax(z_t.float() / tau, dim=1)
        log_q = F.log_softmax(z.float() / tau, dim=1)
        if reduction == "skd_original":
            per_pixel = -(log_p.exp() * log_q).sum(dim=1)
        else:
            per_pixel = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)
        # `where`, not a product: a pixel that does not count must not turn the sum into NaN either.
        return (per_pixel if valid is None else torch.where(valid, per_pixel, 0.0)).sum()

    maps = (student, teacher) if valid is None else (student, teacher, valid)
    total = sum_in_blocks(divergence, *maps, elements=k * h * w)
    count = n * h * w if valid is None else valid.sum().clamp(min=1)
    if reduction == "pixel":
        return tau**2 * total / count
    if reduction == "element":
        return total / (count * k)
    return total / (h * w)


class KD(Method):
    """Pixel-wise KD: each pixel of the logits is a sample of Hinton's distillation (NeurIPS workshop 2014, eq. 1).

    Resize policy: where the grids differ, the teacher's logits are resized bilinearly to the student's.

    - Papers: Hinton et al. name tau^2 but no dense reduction; Liu et al. (CVPR 2019) average the KL over the
      pixels, without temperature.
    - Released code: three scalings under one name (see `pixel_kd`); with K classes, `element` is 1/K of `pixel`, and
      `skd_original` is N times it, N the images on one GPU. All of them count the ignored pixels. A weight means
      nothing without its reduction: 1.0 goes with `pixel` (CIRKD; Af-DCD 0.5 on ADE20K), 10 with the other two.
    - Here: `pixel`, tau 1, weight 1, ignored pixels counted; `ignored="mask"` leaves them out.
    """

    title = "KD"
    source = "Hinton et al., NIPS workshop 2014, arXiv 1503.02531, eq. 1; per pixel: Liu et al., CVPR 2019"
    version = 1
    variants = {
        "mean over elements": {"reduction": "element", "weight": 10.0},
        "without ignored pixels": {"ignored": "mask"},
    }
    taps = ("logits",)

    tau: PositiveFloat = 1.0
    weight: NonNegativeFloat = 1.0
    reduction: Reduction = "pixel"
    ignored: Literal["keep", "mask"] = "keep"

    def losses(self, student: Taps, teacher: Taps, target: Tensor, step: int) -> dict[str, Tensor]:
        """`kd`, the divergence of the logits."""
        z = student["logits"]
        size = z.shape[2:]
        valid = labels_on(target, size) != IGNORE if self.ignored == "mask" else None
        return {"kd": self.weight * pixel_kd(z, resize(teacher["logits"], size), self.tau, self.reduction, valid)}
