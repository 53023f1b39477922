"""Double similarity distillation: how attention changes from map to map, and how classes resemble each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from baselines.at import attention, energy
from benchmark.method import Method, Taps
from benchmark.method.grids import Size, resize


def attention_residuals(maps: Sequence[Tensor], size: Size) -> list[Tensor]:
    """For each pair of maps (earlier, later) the difference of their attention, as unit vectors (N, h w).

    Args:
        maps: (N, C_i, H_i, W_i) each; their energies are resized bilinearly to `size`. Where one map stands twice
            the difference is a constant 0: normalising it would divide the gradient by nearly nothing.
        size: (h, w).
    """
    attentions = [attention(resize(energy(x), size)) for x in maps]
    return [
        torch.zeros_like(attentions[i]) if maps[i] is maps[j] else F.normalize(attentions[j] - attentions[i], eps=1e-12)
        for i, j in combinations(range(len(maps)), 2)
    ]


def pixel_similarity_kd(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Squared difference of the attention residuals, mean over images and positions, averaged over the pairs of maps.

    Args:
        student: three maps from early to late, (N, C, H, W) each; the last one's grid is where all are compared.
        teacher: three maps.

    Source: Feng et al., IEEE TIP 2021, pixel-wise similarity; CIRKD `losses/dsd.py` @2d8ad0f (which normalises twice;
    the second time changes nothing).
    """
    size = student[-1].shape[2:]
    both = zip(attention_residuals(student, size), attention_residuals(teacher, size), strict=True)
    return torch.stack([F.mse_loss(s, t) for s, t in both]).mean()


def class_similarity_kd(student: Tensor, teacher: Tensor, tau: float = 4.0) -> Tensor:
    """Squared difference of the classes' similarities, mean over images and pairs of classes.

    Each class is a distribution over positions (softmax of logits / tau, after 2x2 average-pooling, ceil mode);
    similarities are inner products.

    Args:
        student: logits (N, K, H, W), any float type; computed in float32.
        teacher: logits (N, K, H, W).
        tau: temperature.

    Source: Feng et al., IEEE TIP 2021, category-wise similarity; CIRKD `losses/dsd.py` @2d8ad0f.
    """

    def similarities(z: Tensor) -> Tensor:
        pooled = F.avg_pool2d(z.float(), 2, stride=2, ceil_mode=True).flatten(2)
        classes = F.softmax(pooled / tau, dim=2)
        return classes @ classes.transpose(1, 2)

    return F.mse_loss(similarities(student), similarities(teacher))


class DSD(Method):
    """Double similarity distillation (Feng et al., IEEE TIP 2021): pixel-wise (PSD) and category-wise (CSD).

    Resize policy: the energies of all maps of both networks bilinearly to the grid of the student's logits; the
    teacher's logits bilinearly to that grid.

    - Paper: attention of feature maps of several stages.
    - Released code (CIRKD; the authors' own was not read): auxiliary logits, classifier input, logits; weights 1000
      and 10, no KD. Without an auxiliary head it takes the logits twice, and its gradient there is exactly 0.
    - Here: CIRKD's form and weights; a network without auxiliary head gives c3 as its first map, which is what an
      auxiliary head would read (ours). `first="as_released"` takes the logits, with a clean gradient.
    """

    title = "DSD"
    source = "Feng et al., IEEE TIP 2021; form and weights of winycg/CIRKD @2d8ad0f"
    version = 1
    variants = {"first map as released": {"first": "as_released"}}

    psd_weight: NonNegativeFloat = 1000.0
    csd_weight: NonNegativeFloat = 10.0
    tau: PositiveFloat = 4.0
    first: Literal["aux_or_c3", "as_released"] = "aux_or_c3"

    @property
    def taps(self) -> tuple[str, ...]:
        """Those of its three maps."""
        return (*(("c3",) if self.first == "aux_or_c3" else ()), "aux_logits", "pre_classifier", "logits")

    def losses(self, student: Taps, teacher: Taps, target: Tensor, step: int) -> dict[str, Tensor]:
        """`psd`, pixel-wise similarity; `csd`, category-wise similarity."""
        terms: dict[str, Tensor] = {}
        if self.psd_weight > 0:
            terms["psd"] = self.psd_weight * pixel_similarity_kd(self.maps(student), self.maps(teacher))
        if self.csd_weight > 0:
            z = student["logits"]
            terms["csd"] = self.csd_weight * class_similarity_kd(z, resize(teacher["logits"], z.shape[2:]), self.tau)
        return terms

    def maps(self, taps: Taps) -> tuple[Tensor, Tensor, Tensor]:
        """The three maps of one network, from early to late."""
        substitute = "c3" if self.first == "aux_or_c3" else "logits"
        return taps.get("aux_logits", taps[substitute]), taps["pre_classifier"], taps["logits"]
