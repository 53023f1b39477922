"""Augmentation-free dense contrastive distillation: generate the teacher's features, and contrast them densely."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from baselines.mgd import Generator, Ratio, generation_loss, random_mask
from benchmark.method import Method, Part, Shapes, Taps
from benchmark.method.blocks import sum_in_blocks
from benchmark.method.grids import coarser, pooled


def central_mask(x: Tensor) -> Tensor:
    """0 in the central third of height and width of a map (N, C, H, W), 1 elsewhere, (H, W)."""
    _, _, h, w = x.shape
    keep = torch.ones(h, w, device=x.device)
    keep[h // 3 : 2 * h // 3, w // 3 : 2 * w // 3] = 0
    return keep


def contrast_grid(size: tuple[int, int], pool: int, patch: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    """Pooling and patch for a map of `size` (H, W): as asked where at least one patch fills, else smaller.

    The pooling is reduced first, then the patch (ours: the published code has no answer for such maps).
    """
    smaller = (min(patch[0], size[0]), min(patch[1], size[1]))
    return max(1, min(pool, size[0] // smaller[0], size[1] // smaller[1])), smaller


def patches(x: Tensor, patch: tuple[int, int], groups: int) -> Tensor:
    """A map (N, C, H, W) as vectors of its patches, (patches, positions in a patch, groups, C / groups).

    Channels are split into contiguous groups; rows and columns that fill no patch are left out.
    """
    (n, c, h, w), (ph, pw) = x.shape, patch
    rows, columns = h // ph, w // pw
    x = x[:, :, : rows * ph, : columns * pw].reshape(n, groups, c // groups, rows, ph, columns, pw)
    return x.permute(0, 3, 5, 4, 6, 1, 2).reshape(n * rows * columns, ph * pw, groups, c // groups)


def dense_contrast(
    student: Tensor,
    teacher: Tensor,
    tau: float = 0.07,
    groups: int = 16,
    pool: int = 4,
    patch: tuple[int, int] = (4, 4),
) -> Tensor:
    """Contrast each vector of the student with the teacher's in its patch; similarity is minus the L1 distance / tau.

    A vector is one channel group at one position of a max-pooled map. Positive: the teacher's vector of the same
    position and group. Negatives: those of all positions in the patch and *other* groups; the same group elsewhere is
    neither. Cross-entropy summed over the groups, mean over positions and images: `groups` times the mean per vector.

    Args:
        student: a map (N, C, H, W), any float type; computed in float32.
        teacher: a map (N, C, H, W).
        tau: temperature.
        groups: channel groups; they divide C.
        pool: kernel and stride of the max-pooling, 0 or 1 for none.
        patch: height and width of a patch in pooled cells.

    Source: Fan et al., NeurIPS 2023; Af-DCD `losses/ocmgd.py` @5b086a7.
    """
    if pool > 1:
        student, teacher = (F.max_pool2d(x.float(), pool) for x in (student, teacher))
    student_patches, teacher_patches = (patches(x.float(), patch, groups) for x in (student, teacher))
    count, positions, _, _ = student_patches.shape
    # Vectors are numbered position by position, group by group in each: the remainder is the group.
    index = torch.arange(positions * groups, device=student_patches.device)
    same_group = index[:, None] % groups == index % groups
    neither = same_group & (index[:, None] != index)

    def positives(s: Tensor, t: Tensor) -> Tensor:
        logits = -torch.cdist(s.flatten(1, 2), t.flatten(1, 2), p=1) / tau
        log_probability = F.log_softmax(logits.masked_fill(neither, float("-inf")), dim=2)
        return torch.diagonal(log_probability, dim1=1, dim2=2).sum()

    log_likelihood = sum_in_blocks(positives, student_patches, teacher_patches, elements=len(index) ** 2)
    return -log_likelihood / (count * positions)


class AfDCD(Method):
    """Af-DCD (Fan et al., NeurIPS 2023) on the last backbone stage: reconstruction (`fd`) and dense contrast (`ctr`).

    Resize policy: the finer of the two maps is averaged over the cells of the coarser. Where that is too small for the
    pooling and patches, the pooling is reduced first, then the patch; what fills no patch is left out of the contrast.
    Where 16 groups do not divide the channels, the largest smaller number does.

    - Paper's weights differ per data set; the defaults are those of Cityscapes (`afdcd@afdcd` has the others, and KD).
      Both terms read the same generated map (as MGD's, three quarters of the positions masked).
    - Released code: the reconstruction is a sum over channels and positions, and the contrast the number of groups
      times a mean. CamVid has no pooling. Equal widths crash. The gradient of generator and alignment is clipped to 15.
    - Here: as released, but that equal widths work. Whether the paper also takes the same group at other positions for
      negatives could not be checked, so the code's form stands.
    """

    title = "Af-DCD"
    source = "Fan et al., NeurIPS 2023; OSVAI/Af-DCD @5b086a7"
    version = 1
    variants = {
        "enhanced projector": {"projector": "enhanced"},
        "central mask": {"mask": "central"},
        "without pooling": {"pool": 0},
    }
    taps = ("c4",)

    fd_weight: NonNegativeFloat = 2e-6
    ctr_weight: NonNegativeFloat = 0.005
    tau: PositiveFloat = 0.07
    groups: PositiveInt = 16
    pool: NonNegativeInt = 4
    patch: Annotated[int, Field(ge=1)] = 4
    projector: Literal["plain", "enhanced"] = "plain"
    mask: Literal["random", "central"] = "random"
    mask_ratio: Ratio = 0.75

    generator: Generator

    def build(self, student: Shapes, teacher: Shapes) -> dict[str, Part]:
        """`generator`: alignment and projector, clipped together."""
        widths = student["c4"].channels, teacher["c4"].channels
        return {"generator": Part(Generator(*widths, self.projector), clip_norm=15.0)}

    def losses(self, student: Taps, teacher: Taps, target: Tensor, step: int) -> dict[str, Tensor]:
        """`fd`, reconstruction; `ctr`, dense contrast."""
        size = coarser(student["c4"], teacher["c4"])
        x, t = pooled(student["c4"], size), pooled(teacher["c4"], size)
        keep = random_mask(x, self.mask_ratio) if self.mask == "random" else central_mask(x)
        generated = self.generator(x, keep)
        terms: dict[str, Tensor] = {}
        if self.fd_weight > 0:
            terms["fd"] = self.fd_weight * generation_loss(generated, t)
        if self.ctr_weight > 0:
            groups = next(g for g in range(self.groups, 0, -1) if t.shape[1] % g == 0)
            pool, patch = contrast_grid(size, self.pool, (self.patch, self.patch))
            terms["ctr"] = self.ctr_weight * dense_contrast(generated, t, self.tau, groups, pool, patch)
        return terms
