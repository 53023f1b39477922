"""HeteroAKD: teacher and student meet in logit space, through one projector each to K class channels.

The authors published no code. Behind each formula stands how sure it is: [paper] the paper's own words, [secondary] two
independent re-implementations agree, [one source] a single one says so, [inferred], [ours] a choice of this suite.
Equations 2-4 could not be recovered (probably linear CKA, and Z = P(F) [inferred]). Every doubt is a hyper-parameter.

Symbols: N images, K classes; Z_s, Z_t projected logits of student and teacher (N, K, h, w) on one grid; labels
(N, h, w), int64. Ignored pixels have no defined value in the maps of equations 5-9; `masked_sum` leaves them out.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor, nn

from baselines.kd import pixel_kd
from benchmark.method import IGNORE, Method, Part, Shapes, Taps
from benchmark.method.blocks import added, sum_in_blocks
from benchmark.method.grids import labels_on, resize

UNDERFLOW = 1e-30
"""Two entropies with a sum below this have no meaningful ratio in float32 (its gradient would overflow)."""


def attached(maps: Tensor) -> Tensor:
    """`maps`, gradient and all: the counterpart of `Tensor.detach`."""
    return maps


def masked_sum(losses: Tensor, valid: Tensor) -> Tensor:
    """The sum of losses (N, h, w) over the pixels where `valid` (N, h, w)."""
    return losses.masked_fill(~valid, 0.0).sum()


def reduced(total: Tensor, valid: Tensor, classes: int, reduction: str = "pixel") -> Tensor:
    """A sum over valid pixels and K classes, as it is or as a mean; 0 where no pixel is valid.

    `pixel`: mean over all valid pixels of the batch; `element`: mean over those and the classes; `sum`: plain sum.
    """
    if reduction == "sum":
        return total
    cells = valid.sum().clamp(min=1)
    return total / (cells * classes if reduction == "element" else cells)


def logit_kd(student: Tensor, teacher: Tensor, valid: Tensor | None, tau: float, direction: str) -> Tensor:
    """Eq. 1 on logits (N, K, h, w): tau²·KL of the pixels' class distributions, mean over valid pixels (None: all).

    The paper prints student ‖ teacher [one source]; the default `teacher_student`, KL(teacher ‖ student), is what the
    code base runs on which the paper re-implemented its methods.
    """
    if direction == "student_teacher":
        student, teacher = teacher, student
    return pixel_kd(student, teacher, tau, "pixel", valid)


def one_vs_rest_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Eq. 5 [secondary]: H(Z) = −[Y log σ(Z) + (1−Y) log(1−σ(Z))] per class and pixel, Y the one-hot labels."""
    index = labels.where(labels != IGNORE, 0)[:, None]
    # softplus keeps its relative precision down to underflow, which the ratio of eq. 6 needs.
    return F.softplus(logits).scatter_(1, index, F.softplus(-logits.gather(1, index)))


def teacher_share(h_s: Tensor, h_t: Tensor) -> Tensor:
    """Eq. 6 [secondary]: S_t = 1 − H_t / (H_t + H_s), the teacher's share of each logit; 1/2 where both underflow."""
    total = h_s + h_t
    return torch.where(total > UNDERFLOW, h_s / total.clamp(min=UNDERFLOW), 0.5)


def hybrid_logits(z_s: Tensor, z_t: Tensor, share: Tensor) -> Tensor:
    """Eq. 7 [secondary], knowledge mixing (KMM): Z_hyb = S_t·Z_t + (1−S_t)·Z_s, element by element."""
    return torch.lerp(z_s, z_t, share)


def entropy_drop(h_s: Tensor, h_hybrid: Tensor) -> Tensor:
    """Eq. 8 [secondary]: ΔH = max(0, H(Z_s) − H(Z_hyb)), what the student has to gain."""
    return (h_s - h_hybrid).clamp(min=0.0)


def knowledge_weights(argument: Tensor, valid: Tensor, axis: str = "class") -> Tensor:
    """Eq. 9, knowledge evaluation (KEM): W = softmax of H(Z_s) + ΔH [secondary] over the classes [one source].

    `spatial` [one source]: over the P valid pixels of an image, per class, times P/K [ours], so that the weights
    average 1/K over valid pixels as they do over classes; 0 on ignored pixels.
    """
    if axis == "class":
        return F.softmax(argument, 1)
    mask = valid[:, None].flatten(2)
    # The lowest finite value, not −inf: an image without a valid pixel must give 0 (its P is 0), not NaN.
    scores = argument.flatten(2).masked_fill(~mask, torch.finfo(argument.dtype).min)
    scale = mask.sum(2, keepdim=True) / argument.shape[1]
    return (F.softmax(scores, 2) * scale).view_as(argument)


def weighted_divergence(z_s: Tensor, target: Tensor, weights: Tensor | float, form: str, tau: float) -> Tensor:
    """Eq. 10 [one source] at temperature `tau`, before reduction: (N, K, h, w).

    `ce`: −W_c·p_c(target)·log p_c(Z_s), p the softmax over classes. `kl`: the same minus a constant of the student:
    where target and W are detached its gradients are those of `ce`, but its value can be negative.
    `bernoulli_kl`: W_c·KL(Bernoulli(σ(target_c)) ‖ Bernoulli(σ(Z_s,c))).
    """
    z_s, target = z_s / tau, target / tau
    if form == "bernoulli_kl":
        # p·a + (1−p)·b with p = σ(t), a = log σ(t) − log σ(z), b = log σ(−t) − log σ(−z) = a − (t − z)
        return weights * (F.logsigmoid(target) - F.logsigmoid(z_s) - torch.sigmoid(-target) * (target - z_s))
    log_q, log_p = F.log_softmax(z_s, 1), F.log_softmax(target, 1)
    # The first product needs no gradient by default, so the graph holds one.
    return (-weights * log_p.exp()) * (log_q if form == "ce" else log_q - log_p)


def projection_supervision(logits: Tensor, labels: Tensor, valid: Tensor, kind: str) -> Tensor:
    """The labels' loss on a projection [ours]: `bce` (eq. 5), mean over valid pixels and classes, or pixel `ce`."""
    if kind == "bce":

        def entropy(z: Tensor, y: Tensor, valid: Tensor) -> Tensor:
            return masked_sum(one_vs_rest_entropy(z, y).sum(1), valid)

        total = sum_in_blocks(entropy, logits, labels, valid, elements=logits[0].numel())
        return reduced(total, valid, logits.shape[1], "element")
    return F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum") / valid.sum().clamp(min=1)


def projection(kind: str, channels: int, classes: int) -> nn.Sequential:
    """1×1 convolution to K channels, BN, ReLU [secondary], or a variant of it [ours].

    A final ReLU holds Z ≥ 0, so H ≥ ln 2 on every class but the label's; `conv_bn_relu_conv` (width K) lifts that.
    """
    if kind == "conv":
        return nn.Sequential(nn.Conv2d(channels, classes, 1))
    layers: list[nn.Module] = [nn.Conv2d(channels, classes, 1, bias=False), nn.BatchNorm2d(classes)]
    if kind != "conv_bn":
        layers.append(nn.ReLU())
    if kind == "conv_bn_relu_conv":
        layers.append(nn.Conv2d(classes, classes, 1))
    return nn.Sequential(*layers)


class HeteroAKD(Method):
    """Cross-architecture distillation: λ1·L_kd (eq. 1) + λ2·L_hakd (eq. 10), and the projectors' supervision.

    The paper's total (eq. 11) is L_task + λ1·L_kd + λ2·L_hakd [paper]; `supervision` is ours: under a detached target
    nothing in it trains the teacher's projector, and under an attached one both projections can collapse. The target
    uses labels, so its gain is judged against the controls in `variants`, never against the student alone only.

    Resize policy: each network is projected on its own grid; then projections go bilinearly to the common `grid`, the
    one with more cells of the two by default, and labels nearest. Eq. 1 takes the teacher's logits bilinearly, the
    labels nearest, to the grid of the student's logits. All is computed in float32.
    """

    title = "HeteroAKD"
    source = "Huang et al., AAAI 2025, arXiv 2504.07691, eq. 1 and 5-11; no code published"
    version = 1
    variants = {
        "control, projector supervision only": {"lambda1": 0.0, "lambda2": 0.0},
        "control, supervision + KD": {"lambda2": 0.0},
        "without KMM": {"kmm": False},
        "without KEM": {"kem": False},
    }

    lambda1: NonNegativeFloat = 0.1
    """Weight of eq. 1 [one source]; a term of weight 0 is not computed."""
    lambda2: NonNegativeFloat = 1.0
    """Weight of eq. 10: 1 or 10, "depending on the pair" [one source]; it means nothing without `reduction`."""
    kd_direction: Literal["teacher_student", "student_teacher"] = "teacher_student"
    kd_tau: PositiveFloat = 1.0
    kd_ignored: Literal["mask", "keep"] = "mask"
    """Whether ignored pixels count in eq. 1; that code base keeps them."""
    projector: Literal["conv_bn_relu", "conv_bn", "conv_bn_relu_conv", "conv"] = "conv_bn_relu"
    tap: Literal["stage4", "pre_classifier"] = "stage4"
    """What is projected: the last backbone stage [one source], or the classifier's input."""
    grid: Literal["larger", "student", "label"] = "larger"
    weight_axis: Literal["class", "spatial"] = "class"
    weight_argument: Literal["hs_plus_dh", "dh"] = "hs_plus_dh"
    form: Literal["ce", "kl", "bernoulli_kl"] = "ce"
    reduction: Literal["pixel", "element", "sum"] = "pixel"
    tau: PositiveFloat = 1.0
    detach: Literal["all", "weights_only", "none"] = "all"
    """What carries no gradient: S_t, W and the target; S_t and W; nothing."""
    supervision: Literal["bce", "ce"] = "bce"
    supervision_weight: NonNegativeFloat = 1.0
    supervision_detach: bool = False
    """Whether the supervision stops at the student's projector and does not reach its backbone."""
    warmup: NonNegativeInt = 0
    """For so many iterations both KD terms count 0 (no ramp); their graph stays, as DDP wants every parameter in it."""
    kmm: bool = True
    """Knowledge mixing; off, the target is Z_t."""
    kem: bool = True
    """Knowledge evaluation; off, W = 1/K."""

    student_projector: nn.Sequential
    teacher_projector: nn.Sequential

    @property
    def taps(self) -> tuple[str, ...]:
        """The logits, and the feature that is projected."""
        return "logits", "c4" if self.tap == "stage4" else self.tap

    def build(self, student: Shapes, teacher: Shapes) -> dict[str, Part]:
        """One projector per network, under the student's optimiser; none if no term reads them."""
        if not self.lambda2 and not self.supervision_weight:
            return {}
        feature, classes = self.taps[1], student["logits"].channels
        for_student = projection(self.projector, student[feature].channels, classes)
        for_teacher = projection(self.projector, teacher[feature].channels, classes)
        if not self.supervision_weight and self.detach == "all":
            for_teacher.requires_grad_(False)  # nothing reaches it: it stays random, and DDP must not wait for it
        return {"student_projector": Part(for_student), "teacher_projector": Part(for_teacher)}

    def losses(self, student: Taps, teacher: Taps, target: Tensor, step: int) -> dict[str, Tensor]:
        """`kd`, `hakd` and `supervision`, those with a weight."""
        terms: dict[str, Tensor] = {}
        started = float(step >= self.warmup)
        if self.lambda1:
            o_s, size = student["logits"], student["logits"].shape[2:]
            o_t = resize(teacher["logits"], size)
            valid = labels_on(target, size) != IGNORE if self.kd_ignored == "mask" else None
            terms["kd"] = self.lambda1 * started * logit_kd(o_s, o_t, valid, self.kd_tau, self.kd_direction)
        if not self.parts:
            return terms

        f_s, f_t = student[self.taps[1]].float(), teacher[self.taps[1]].float()
        larger = max(f_s.shape[2:], f_t.shape[2:], key=torch.Size.numel)
        size = {"larger": larger, "student": f_s.shape[2:], "label": target.shape[1:]}[self.grid]
        labels = labels_on(target, size)
        valid = labels != IGNORE
        z_s = resize(self.student_projector(f_s).float(), size)
        z_t = resize(self.teacher_projector(f_t).float(), size)
        if self.lambda2:
            terms["hakd"] = self.lambda2 * started * self.hakd(z_s, z_t, labels, valid)
        if self.supervision_weight:
            if self.supervision_detach:
                z_s = resize(self.student_projector(f_s.detach()).float(), size)
            both = (projection_supervision(z, labels, valid, self.supervision) for z in (z_s, z_t))
            terms["supervision"] = self.supervision_weight * added(both)
        return terms

    def hakd(self, z_s: Tensor, z_t: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """L_hakd: eq. 5-10 on Z_s, Z_t (N, K, h, w) and labels (N, h, w), times tau² as in Hinton's KD [ours]."""
        total = sum_in_blocks(self.total, z_s, z_t, labels, valid, elements=z_s[0].numel())
        return self.tau**2 * reduced(total, valid, z_s.shape[1], self.reduction)

    def total(self, z_s: Tensor, z_t: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """L_hakd summed over classes and valid pixels."""
        # Three roles, three gradients: Z_s as it learns (always attached), the target, and what weighs.
        aim = Tensor.detach if self.detach == "all" else attached
        weigh = attached if self.detach == "none" else Tensor.detach
        h_s = one_vs_rest_entropy(weigh(z_s), labels)
        target = aim(z_t)
        if self.kmm:
            target = hybrid_logits(aim(z_s), target, teacher_share(h_s, one_vs_rest_entropy(weigh(z_t), labels)))
        weights: Tensor | float = 1 / z_s.shape[1]
        if self.kem:
            gain = entropy_drop(h_s, one_vs_rest_entropy(weigh(target), labels))
            argument = h_s + gain if self.weight_argument == "hs_plus_dh" else gain
            weights = knowledge_weights(argument, valid, self.weight_axis)
        return masked_sum(weighted_divergence(z_s, target, weights, self.form, self.tau).sum(1), valid)
