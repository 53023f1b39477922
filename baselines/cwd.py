"""Channel-wise distillation: every channel is a distribution over positions, and the student imitates it."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from benchmark.method import Method, Part, Shapes, Taps
from benchmark.method.grids import resize


def channel_kl(student: Tensor, teacher: Tensor, tau: float = 4.0, divisor: int | None = None) -> Tensor:
    """tau^2 KL(p || q), summed over images and channels, divided by N and `divisor`.

    p and q are the softmax of a channel of teacher / tau and student / tau over its H W positions.

    Args:
        student: a map (N, C, H, W), any float type; computed in float32.
        teacher: a map (N, C, H, W).
        tau: temperature.
        divisor: what the sum over the channels is divided by; None: C, so that it is a mean.

    Source: Shu et al., ICCV 2021, eq. 4. The released code takes log(softmax), which is -inf where a position
    underflows; this takes log_softmax.
    """
    n, c, _, _ = student.shape
    log_p = F.log_softmax(teacher.float().flatten(2) / tau, dim=2)
    log_q = F.log_softmax(student.float().flatten(2) / tau, dim=2)
    total = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
    return tau**2 * total / (n * (c if divisor is None else divisor))


class CWD(Method):
    """Channel-wise KD (Shu et al., ICCV 2021, eq. 4) on the logits, and optionally on the classifier's input.

    Resize policy: where the grids differ, the teacher's map is resized bilinearly to the student's.

    - Paper and its code: for Cityscapes the logits alone, tau 4, weight 3. A feature term there has a
      conv-ABN-ReLU adaptor.
    - CIRKD's code: adds a feature term of weight 50 with a plain 1x1 convolution, divided by the *student's* channels
      although it sums over the teacher's (`divisor="student_channels"`), next to KD and an adversary.
    - Here: the paper's logit term; the feature term has CIRKD's convolution (only where the widths differ), and is
      divided by the channels it sums over, unless `divisor` says otherwise.
    """

    title = "CWD"
    source = "Shu et al., ICCV 2021, arXiv 2011.13256, eq. 4"
    version = 1
    variants = {"with features": {"feature_weight": 50.0}}

    tau: PositiveFloat = 4.0
    weight: NonNegativeFloat = 3.0
    feature_weight: NonNegativeFloat = 0.0
    divisor: Literal["summed_channels", "student_channels"] = "summed_channels"

    align: nn.Conv2d

    @property
    def taps(self) -> tuple[str, ...]:
        """The logits, and the classifier's input if the feature term is on."""
        return ("logits", "pre_classifier") if self.feature_weight > 0 else ("logits",)

    def build(self, student: Shapes, teacher: Shapes) -> dict[str, Part]:
        """`align`: a 1x1 convolution without bias to the teacher's width, for features of different width."""
        if self.feature_weight == 0:
            return {}
        channels = student["pre_classifier"].channels, teacher["pre_classifier"].channels
        if channels[0] == channels[1]:
            return {}
        return {"align": Part(nn.Conv2d(*channels, kernel_size=1, bias=False))}

    def losses(self, student: Taps, teacher: Taps, target: Tensor, step: int) -> dict[str, Tensor]:
        """`cwd`, the divergence of the logits; `cwd_feature`, that of the features."""
        terms: dict[str, Tensor] = {}
        if self.weight > 0:
            z = student["logits"]
            terms["cwd"] = self.weight * channel_kl(z, resize(teacher["logits"], z.shape[2:]), self.tau)
        if self.feature_weight > 0:
            f = student["pre_classifier"]
            aligned = self.align(f.float()) if "align" in self.parts else f
            divisor = f.shape[1] if self.divisor == "student_channels" else None
            t = resize(teacher["pre_classifier"], f.shape[2:])
            terms["cwd_feature"] = self.feature_weight * channel_kl(aligned, t, self.tau, divisor)
        return terms
