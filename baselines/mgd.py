"""Masked generative distillation: from masked student features a small network generates the teacher's."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn

from benchmark.method import Method, Part, Shapes, Taps
from benchmark.method.grids import coarser, pooled

Ratio = Annotated[float, Field(ge=0, lt=1)]


def random_mask(x: Tensor, ratio: float) -> Tensor:
    """1 at positions to keep and 0 at a random share `ratio` of them, (N, 1, H, W) for a map (N, C, H, W)."""
    n, _, h, w = x.shape
    return (torch.rand(n, 1, h, w, device=x.device) <= 1 - ratio).float()


def generation_loss(generated: Tensor, teacher: Tensor, reduction: str = "sum") -> Tensor:
    """Squared difference of two maps (N, C, H, W), in float32.

    `sum`: over everything, divided by N: it grows with width and resolution. `mean`: mean over everything.

    Source: Yang et al., ECCV 2022, eq. 4; MGD `seg/mmseg/distillation/losses/mgd.py` @2c9da0b.
    """
    if reduction == "mean":
        return F.mse_loss(generated, teacher.float())
    return F.mse_loss(generated, teacher.float(), reduction="sum") / len(teacher)


class Generator(nn.Module):
    """Masks a student's map, aligns it to the teacher's width, and generates a teacher's map from it.

    Args:
        student, teacher: channels of the two maps; where they are equal there is no alignment.
        projector: `plain`: two 3x3 convolutions with a ReLU between. `enhanced` (Af-DCD): the mean of one 3x3
            convolution each after the first and the second of two convolution-ReLU blocks.
    """

    def __init__(self, student: int, teacher: int, projector: Literal["plain", "enhanced"] = "plain") -> None:
        super().__init__()
        self.align = nn.Identity() if student == teacher else nn.Conv2d(student, teacher, 1)
        count = {"plain": 2, "enhanced": 4}[projector]
        self.convolutions = nn.ModuleList(nn.Conv2d(teacher, teacher, 3, padding=1) for _ in range(count))

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """A map (N, C', H, W) from one of (N, C, H, W) and a mask `keep` (N, 1, H, W) or (H, W), 1 where it is kept."""
        x = self.align(x.float()) * keep
        if len(self.convolutions) == 2:
            first, second = self.convolutions
            return second(F.relu(first(x)))
        block1, block2, adapt1, adapt2 = self.convolutions
        a = F.relu(block1(x))
        return (adapt1(a) + adapt2(F.relu(block2(a)))) / 2


class MGD(Method):
    """Masked generative distillation (Yang et al., ECCV 2022, eq. 4) on the last backbone stage.

    Resize policy: the finer of the two maps is averaged over the cells of the coarser.

    - Paper and its code: three quarters of the positions masked at random, weight 2e-5 on a *sum* over channels and
      positions: as a mean that is 168 for 2048 channels at 64x64 cells, and another weight at every other size.
    - Released code: adds a channel-wise term on the logits (tau 4, weight 3) that the paper does not name.
    - Here: the paper's term alone (`mgd@mgd` has both); `reduction="mean"` with a weight of its own survives another
      width or resolution. The generator has 18 C'^2 weights: 75.5 M for a teacher of 2048 channels.
    """

    title = "MGD"
    source = "Yang et al., ECCV 2022, arXiv 2205.01529, eq. 4; yzd-v/MGD @2c9da0b"
    version = 1
    variants = {"mean over elements": {"reduction": "mean", "weight": 10.0}}
    taps = ("c4",)

    weight: NonNegativeFloat = 2e-5
    mask_ratio: Ratio = 0.75
    reduction: Literal["sum", "mean"] = "sum"

    generator: Generator

    def build(self, student: Shapes, teacher: Shapes) -> dict[str, Part]:
        """`generator`: alignment and two 3x3 convolutions."""
        return {"generator": Part(Generator(student["c4"].channels, teacher["c4"].channels))}

    def losses(self, student: Taps, teacher: Taps, target: Tensor, step: int) -> dict[str, Tensor]:
        """`mgd`, the squared difference of generated and teacher's features."""
        size = coarser(student["c4"], teacher["c4"])
        x, t = pooled(student["c4"], size), pooled(teacher["c4"], size)
        generated = self.generator(x, random_mask(x, self.mask_ratio))
        return {"mgd": self.weight * generation_loss(generated, t, self.reduction)}
