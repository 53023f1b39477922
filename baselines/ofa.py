"""One-for-all distillation, made dense: every stage of the student predicts classes, and learns the teacher's."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from benchmark.method import IGNORE, Method, Part, Shapes, Taps
from benchmark.method.grids import labelled_mean, labels_on, resize


def target_enhanced_kd(student: Tensor, teacher: Tensor, labels: Tensor, gamma: float = 1.5) -> Tensor:
    """-sum over classes of ((p + y)^gamma - y) log q, mean over the pixels that are not ignored, 0 if all are.

    p = softmax(teacher), q = softmax(student), y the one-hot label. So the label's class weighs (1 + p)^gamma - 1, any
    other p^gamma: the surer the teacher is of the label, the more of it there is to learn. At gamma 1 the labels do
    not matter, and it is the cross-entropy of p and q. Not 0 where p = q.

    Args:
        student: logits (N, K, H, W), any float type; computed in float32.
        teacher: logits (N, K, H, W), without gradient.
        labels: (N, H, W), int64.
        gamma: at least 1.

    Source: Hao et al., NeurIPS 2023, adaptive target enhancement; OFAKD `distillers/ofa.py` @f7bb896, which is for one
    prediction per image and takes log(softmax), which is -inf where a class underflows; this takes log_softmax.
    """
    index = labels.where(labels != IGNORE, 0)[:, None]
    log_p = F.log_softmax(teacher.float(), dim=1)
    # (1 + p)^gamma - 1 by expm1 and log1p, which keep the digits of a small p.
    enhanced = torch.expm1(gamma * torch.log1p(log_p.gather(1, index).exp()))
    weights = (gamma * log_p).exp().scatter(1, index, enhanced)
    per_pixel = -(weights * F.log_softmax(student.float(), dim=1)).sum(dim=1)
    return labelled_mean(per_pixel, labels)


def branch(channels: int, width: int, classes: int) -> nn.Sequential:
    """Class logits of a stage (N, C, H, W) on its own grid: 3x3 convolution to `width`, BN, ReLU, 1x1 convolution."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, classes, 1),
    )


class OFA(Method):
    """OFA-KD (Hao et al., NeurIPS 2023) for dense prediction; **the dense form is ours**, there is no official one.

    Resize policy: for each branch the teacher's logits bilinearly and the labels nearest to the branch's own grid; for
    the student's logits likewise.

    - Paper: one class prediction per image and branch, for pairs of unlike architecture. The label's class weighs
      (1 + p)^gamma, so its cross-entropy is contained, in the branches too; from memory, not re-read: the other classes
      weigh p, without gamma.
    - Released code: (p + y)^gamma - y for every class; the y taken off is the task loss, which only the student's own
      logits have beside it. Temperature 1; weight 1 for the logits, 1 for the sum over the branches (0.1 in what the
      authors posted of CIFAR-100); gamma 1 by default, 1.5 in the command of its README (a CNN that learns from a
      Transformer on ImageNet). A CNN's branch shrinks the stage to the size of the last by separable convolutions, and
      ends in global average pooling and a linear layer; a Transformer's merges patches, and has attention blocks.
    - Here: the released loss at each pixel, mean over those that are not ignored. Without global average pooling there
      is nothing to shrink to: each branch is a head like the usual auxiliary one (3x3 convolution of `width` channels,
      BN, ReLU, 1x1 convolution), the same for both families. gamma 1.5, because at 1 nothing is enhanced.
    """

    title = "OFA (dense)"
    source = "Hao et al., NeurIPS 2023, arXiv 2310.19444; loss of Hao840/OFAKD @f7bb896, dense form ours"
    version = 1
    variants = {"logits only": {"branch_weight": 0.0}, "without enhancement": {"gamma": 1.0}}

    gamma: Annotated[float, Field(ge=1)] = 1.5
    weight: NonNegativeFloat = 1.0
    """Weight of the student's own logits."""
    branch_weight: NonNegativeFloat = 1.0
    """Weight of the sum over the branches."""
    stages: Annotated[str, Field(pattern="^(1?2?3?4|1?2?3|1?2|1)$")] = "1234"
    """Which stages of the backbone have a branch, in order."""
    width: PositiveInt = 256

    branches: nn.ModuleDict

    @property
    def taps(self) -> tuple[str, ...]:
        """The logits, and the stages that have a branch (of the student; the teacher's go unread)."""
        return ("logits", *self._branches())

    def build(self, student: Shapes, teacher: Shapes) -> dict[str, Part]:
        """`branches`, one head for each stage."""
        if not self._branches():
            return {}
        classes = student["logits"].channels
        heads = {stage: branch(student[stage].channels, self.width, classes) for stage in self._branches()}
        return {"branches": Part(nn.ModuleDict(heads))}

    def losses(self, student: Taps, teacher: Taps, target: Tensor, step: int) -> dict[str, Tensor]:
        """`ofa`, the loss of the student's logits; `ofa_c1` and so on, that of each branch."""

        def loss(logits: Tensor) -> Tensor:
            size = logits.shape[2:]
            return target_enhanced_kd(logits, resize(teacher["logits"], size), labels_on(target, size), self.gamma)

        terms: dict[str, Tensor] = {}
        if self.weight > 0:
            terms["ofa"] = self.weight * loss(student["logits"])
        for stage in self._branches():
            terms[f"ofa_{stage}"] = self.branch_weight * loss(self.branches[stage](student[stage].float()))
        return terms

    def _branches(self) -> tuple[str, ...]:
        return tuple(f"c{stage}" for stage in self.stages) if self.branch_weight > 0 else ()
