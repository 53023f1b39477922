"""Relational distillation: the student's class probabilities correlate with the teacher's, instead of matching them."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from benchmark.method import IGNORE, Method, Taps
from benchmark.method.grids import labels_on, resize


def correlation(x: Tensor, y: Tensor, dim: int) -> Tensor:
    """Cosine of two centred tensors along `dim`, which it removes; 0 where one of them is constant."""
    norms = torch.linalg.vector_norm(x, dim=dim) * torch.linalg.vector_norm(y, dim=dim)
    return (x * y).sum(dim=dim) / (norms + 1e-8)


def inter_class_kd(student: Tensor, teacher: Tensor, tau: float = 1.0, valid: Tensor | None = None) -> Tensor:
    """tau^2 (1 - the Pearson correlation over the classes of a pixel), mean over pixels and images.

    Correlated are softmax(student / tau) and softmax(teacher / tau).

    Args:
        student: logits (N, K, H, W), any float type; computed in float32.
        teacher: logits (N, K, H, W).
        tau: temperature.
        valid: pixels that count, (N, H, W) bool; 0 where none does. None: all count.

    Source: Huang et al., NeurIPS 2022, inter-class relation; DIST `segmentation/losses/dist_kd.py` @2418f18, which has
    no temperature; the factor tau^2 is that of the authors' classification code.
    """
    p, q = (torch.softmax(x.float() / tau, dim=1) for x in (teacher, student))
    distance = 1.0 - correlation(q - q.mean(1, keepdim=True), p - p.mean(1, keepdim=True), dim=1)
    if valid is None:
        return tau**2 * distance.mean()
    return tau**2 * torch.where(valid, distance, 0.0).sum() / valid.sum().clamp(min=1)


def intra_class_kd(student: Tensor, teacher: Tensor, tau: float = 1.0, valid: Tensor | None = None) -> Tensor:
    """tau^2 (1 - the Pearson correlation over all pixels *of the batch*, of one class), mean over classes.

    A class whose probability is the same at all pixels of either network correlates 0, so it adds tau^2 / K and no
    gradient.

    Args:
        student: logits (N, K, H, W), any float type; computed in float32.
        teacher: logits (N, K, H, W).
        tau: temperature.
        valid: pixels that count, (N, H, W) bool; 0 where none does. None: all count.

    Source: as `inter_class_kd`, intra-class relation.
    """

    def centred(logits: Tensor) -> Tensor:
        y = torch.softmax(logits.float() / tau, dim=1).transpose(0, 1).flatten(1)
        if valid is None:
            return y - y.mean(1, keepdim=True)
        # Pixels that do not count are put at the mean of the others: they add nothing to any product.
        y = torch.where(valid.flatten(), y, 0.0)
        mean = y.sum(1, keepdim=True) / valid.sum().clamp(min=1)
        return torch.where(valid.flatten(), y - mean, 0.0)

    loss = tau**2 * (1.0 - correlation(centred(student), centred(teacher), dim=1).mean())
    return loss if valid is None else torch.where(valid.any(), loss, 0.0)


class DIST(Method):
    """DIST (Huang et al., NeurIPS 2022): correlation over the classes of a pixel, and over the pixels of a class.

    Resize policy: where the grids differ, the teacher's logits are resized bilinearly to the student's.

    - Paper: the two terms next to the task loss, instead of KD; written for one prediction per image.
    - Released code for segmentation: beta, gamma and tau 1; each pixel is a sample, ignored ones too; the same two
      terms on the auxiliary logits with factor 0.4 (`aux_weight`), where the student has such a head. Its training
      script decays weights by 5e-4, its baseline by 1e-4.
    - Here: the logits alone, unless `aux_weight` says otherwise; `ignored="mask"` leaves ignored pixels out.
    """

    title = "DIST"
    source = "Huang et al., NeurIPS 2022, arXiv 2205.10536; form and weights of hunto/DIST_KD @2418f18"
    version = 1
    variants = {"with auxiliary logits": {"aux_weight": 0.4}, "without ignored pixels": {"ignored": "mask"}}

    tau: PositiveFloat = 1.0
    beta: NonNegativeFloat = 1.0
    """Weight of the inter-class term."""
    gamma: NonNegativeFloat = 1.0
    """Weight of the intra-class term."""
    weight: NonNegativeFloat = 1.0
    """Weight of everything."""
    aux_weight: NonNegativeFloat = 0.0
    """How much the auxiliary logits count next to the logits."""
    ignored: Literal["keep", "mask"] = "keep"

    @property
    def taps(self) -> tuple[str, ...]:
        """The logits, and the auxiliary ones if they count."""
        return ("logits", "aux_logits") if self.aux_weight > 0 else ("logits",)

    def losses(self, student: Taps, teacher: Taps, target: Tensor, step: int) -> dict[str, Tensor]:
        """`inter` and `intra`, and `aux_inter` and `aux_intra` if both networks have auxiliary logits."""
        terms: dict[str, Tensor] = {}
        for tap, prefix, weight in (("logits", "", 1.0), ("aux_logits", "aux_", self.aux_weight)):
            if tap not in student or tap not in teacher:
                continue
            z = student[tap]
            size = z.shape[2:]
            z_t = resize(teacher[tap], size)
            valid = labels_on(target, size) != IGNORE if self.ignored == "mask" else None
            inter, intra = self.weight * weight * self.beta, self.weight * weight * self.gamma
            if inter > 0:
                terms[f"{prefix}inter"] = inter * inter_class_kd(z, z_t, self.tau, valid)
            if intra > 0:
                terms[f"{prefix}intra"] = intra * intra_class_kd(z, z_t, self.tau, valid)
        return terms
