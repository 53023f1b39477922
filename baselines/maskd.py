"""Masked distillation: learnt tokens say where the teacher's logits matter, and there the student imitates them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from benchmark.method import IGNORE, Method, Part, Shapes, Taps
from benchmark.method.grids import resize


def receptive_masks(logits: Tensor, tokens: Tensor) -> Tensor:
    """Where each token looks, (N, T, H, W) in (0, 1): the sigmoid of its product with the logits of a pixel.

    Args:
        logits: the teacher's (N, K, H, W), any float type; computed in float32.
        tokens: (T, K).

    Source: Huang et al., ICLR 2023; MasKD `segmentation/losses/maskd.py` @b5af34f.
    """
    return torch.einsum("tk,nkhw->nthw", tokens, logits.float()).sigmoid()


def mask_overlap(masks: Tensor) -> Tensor:
    """Dice coefficient 2 <a, b> / (|a|^2 + |b|^2) of two masks of an image, mean over pairs of masks and images.

    Args:
        masks: (N, T, H, W) with T at least 2.

    Source: as `receptive_masks`.
    """
    n, t, _, _ = masks.shape
    flat = masks.flatten(2)
    products = flat @ flat.transpose(1, 2)
    squares = products.diagonal(dim1=1, dim2=2)
    dice = 2 * products / (squares[:, :, None] + squares[:, None, :] + 2e-12)
    return (dice.sum() - dice.diagonal(dim1=1, dim2=2).sum()) / (n * t * (t - 1))


def masked_logits(logits: Tensor, masks: Tensor) -> Tensor:
    """Logits (N, K, H, W) times the sum of the masks (N, T, H, W) at each pixel, in float32."""
    return logits.float() * masks.sum(dim=1, keepdim=True)


def token_loss(logits: Tensor, target: Tensor, tokens: Tensor) -> Tensor:
    """What the tokens are learnt with: cross-entropy of the masked logits, plus the overlap of the masks.

    The cross-entropy is that of the masked logits on the labels' grid (bilinear, `align_corners=True`), mean over the
    pixels that are not ignored, 0 if all are.

    Args:
        logits: the teacher's (N, K, h, w), without gradient.
        target: labels (N, H, W), int64.
        tokens: (T, K).

    Source: MasKD `segmentation/train_mask_module.py` @b5af34f, without its cross-entropy of the auxiliary logits: no
    mask reaches those, so it is a constant.
    """
    masks = receptive_masks(logits, tokens)
    full = F.interpolate(masked_logits(logits, masks), size=target.shape[1:], mode="bilinear", align_corners=True)
    total = F.cross_entropy(full, target, ignore_index=IGNORE, reduction="sum")
    return total / (target != IGNORE).sum().clamp(min=1) + mask_overlap(masks)


def masked_mse(student: Tensor, teacher: Tensor, masks: Tensor) -> Tensor:
    """Half the squared difference within each mask, mean over images, masks and classes.

    Within a mask m: the sum over positions of m^2 (student - teacher)^2, divided by the sum of m (+ 1e-5).

    Args:
        student: logits (N, K, H, W), any float type; computed in float32.
        teacher: logits (N, K, H, W).
        masks: (N, T, H, W).

    Source: as `receptive_masks`. The mask enters squared above and once below.
    """
    squares = (student.float() - teacher.float()).square()
    # One product of matrices: the differences under all masks, (N, T, K, H, W), would take T times the memory.
    sums = torch.einsum("nthw,nkhw->ntk", masks.square(), squares)
    return 0.5 * (sums / (masks.sum(dim=(2, 3)) + 1e-5)[..., None]).mean()


class MaskTokens(nn.Module):
    """`tokens` (T, K), a buffer: stage 1 writes it, no optimiser of the training does.

    `momentum` and `steps` are how far stage 1 is, so that it can go on after a stop.
    """

    tokens: Tensor
    momentum: Tensor
    steps: Tensor

    def __init__(self, tokens: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("tokens", 0.01 * torch.randn(tokens, classes))
        self.register_buffer("momentum", torch.zeros(tokens, classes))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, logits: Tensor) -> Tensor:
        """The masks (N, T, H, W) of logits (N, K, H, W)."""
        return receptive_masks(logits, self.tokens)


class MasKD(Method):
    """Masked distillation with receptive tokens (Huang et al., ICLR 2023), on the logits.

    First the tokens are learnt on the frozen teacher: it must still classify through the sum of their masks, and the
    masks must not overlap. Then the student imitates the teacher's logits under each mask.

    Resize policy: the tokens are learnt on the teacher's own grid; for the student the teacher's logits are resized
    bilinearly to the student's grid, and the masks are those of the resized logits.

    - Paper: written for any feature map, mostly for detection.
    - Released code for segmentation: logits, 8 tokens, 10,000 iterations of SGD (rate 0.1, polynomial decay to 0,
      momentum 0.9, weight decay 1e-3) in batches of 16, with the teacher's normalisation in training mode; the tokens
      that classified the validation images best. Then weight 1, and the same loss on the auxiliary logits with factor
      0.4 (`aux_weight`), under the masks of the teacher's auxiliary logits, where both have such a head. Weight decay
      of the student 5e-4 (2e-4 for MobileNetV2), its baseline 1e-4.
    - Here: the same first stage in the batch size of the run, but for the teacher in evaluation mode and the last
      tokens instead of the best; no auxiliary logits, unless `aux_weight` says otherwise.
    """

    title = "MasKD"
    source = "Huang et al., ICLR 2023, arXiv 2205.14589; form and weights of hunto/MasKD @b5af34f, segmentation"
    version = 1
    variants = {"with auxiliary logits": {"aux_weight": 0.4}}

    tokens: Annotated[int, Field(ge=2)] = 8
    weight: NonNegativeFloat = 1.0
    aux_weight: NonNegativeFloat = 0.0
    """How much the auxiliary logits count next to the logits."""
    stage1_iterations: PositiveInt = 10_000
    stage1_lr: PositiveFloat = 0.1

    masks: MaskTokens

    @property
    def taps(self) -> tuple[str, ...]:
        """The logits, and the auxiliary ones if they count."""
        return ("logits", "aux_logits") if self.aux_weight > 0 else ("logits",)

    def build(self, student: Shapes, teacher: Shapes) -> dict[str, Part]:
        """`masks`, the tokens, which no optimiser of the training changes."""
        return {"masks": Part(MaskTokens(self.tokens, teacher["logits"].channels))}

    def prepare(self, teacher: nn.Module, batches: Iterable[tuple[Taps, Tensor]]) -> None:
        """Learn the tokens, in `stage1_iterations` steps, from where the stage was."""
        masks, begun = self.masks, int(self.masks.steps)
        tokens = masks.tokens.clone().requires_grad_()
        optimizer = torch.optim.SGD([tokens], lr=self.stage1_lr, momentum=0.9, weight_decay=1e-3)
        optimizer.state[tokens]["momentum_buffer"] = masks.momentum  # updated in place
        taken = islice(batches, self.stage1_iterations - begun)
        for step, (taps, target) in enumerate(taken, start=begun):
            optimizer.param_groups[0]["lr"] = self.stage1_lr * (1 - step / self.stage1_iterations) ** 0.9
            optimizer.zero_grad()
            token_loss(taps["logits"], target, tokens).backward()
            optimizer.step()
            masks.tokens.copy_(tokens.detach())
            masks.steps += 1

    def losses(self, student: Taps, teacher: Taps, target: Tensor, step: int) -> dict[str, Tensor]:
        """`maskd`, and `maskd_aux` if both networks have auxiliary logits."""
        terms: dict[str, Tensor] = {}
        for tap, term, weight in (
            ("logits", "maskd", self.weight),
            ("aux_logits", "maskd_aux", self.weight * self.aux_weight),
        ):
            if weight > 0 and tap in student and tap in teacher:
                z = student[tap]
                z_t = resize(teacher[tap], z.shape[2:])
                terms[term] = weight * masked_mse(z, z_t, self.masks(z_t))
        return terms
