"""Attention transfer: where the student's features are strong, relative to elsewhere, is where the teacher's are."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor

from benchmark.method import Method, Taps
from benchmark.method.grids import resize


def energy(x: Tensor) -> Tensor:
    """The mean over channels of x^2, (N, 1, H, W) for a map (N, C, H, W), in float32."""
    return x.float().square().mean(dim=1, keepdim=True)


def attention(energies: Tensor) -> Tensor:
    """Energies (N, 1, H, W) as unit vectors over the positions of each image, (N, H W)."""
    return F.normalize(energies.flatten(1), dim=1, eps=1e-12)


def attention_kd(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of the attention of two maps, mean over images and positions.

    Args:
        student: a map (N, C, H, W), any float type; computed in float32.
        teacher: a map (N, C', H', W'); its energy is resized bilinearly to (H, W) where the grids differ.

    Source: Zagoruyko & Komodakis, ICLR 2017, eq. 2 (p = 2; there the norm, not the mean square); CIRKD
    `losses/at.py` @2d8ad0f.
    """
    student_energy = energy(student)
    return F.mse_loss(attention(student_energy), attention(resize(energy(teacher), student_energy.shape[2:])))


class AT(Method):
    """Activation-based attention transfer (Zagoruyko & Komodakis, ICLR 2017, eq. 2) on the classifier's input.

    Resize policy: where the grids differ, the teacher's energy (channel mean of squares) is resized bilinearly to the
    student's grid, and normalised there.

    - Paper: the norm of the difference of attention maps, on the outputs of several stages, beta / 2 with beta 1000.
    - Released code (CIRKD): the mean square of the difference, on the classifier's input alone, weight 10,000 next to
      KD of weight 1.
    - Here: CIRKD's form and weight, without KD (`at@cirkd` has it).
    """

    title = "AT"
    source = "Zagoruyko & Komodakis, ICLR 2017, arXiv 1612.03928, eq. 2; form and weight of winycg/CIRKD @2d8ad0f"
    version = 1
    taps = ("pre_classifier",)

    weight: NonNegativeFloat = 10_000.0

    def losses(self, student: Taps, teacher: Taps, target: Tensor, step: int) -> dict[str, Tensor]:
        """`at`, the squared difference of the attention."""
        return {"at": self.weight * attention_kd(student["pre_classifier"], teacher["pre_classifier"])}
