"""FitNet: the student's features, through a 1x1 convolution, imitate the teacher's."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from benchmark.method import Method, Part, Shapes, Taps
from benchmark.method.grids import resize


def feature_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of two maps (N, C, H, W), mean over everything, in float32.

    Source: Romero et al., ICLR 2015, eq. 3 (there half the sum); CIRKD `losses/fitnet.py` @2d8ad0f.
    """
    return F.mse_loss(student.float(), teacher.float())


class FitNet(Method):
    """Hint learning (Romero et al., ICLR 2015, eq. 3) on the classifier's input.

    Resize policy: where the grids differ, the teacher's map is resized bilinearly to the student's.

    - Paper: a first stage trains the lower half of the student on the hint alone, half the squared norm; then KD.
    - Released code (CIRKD): one stage, a 1x1 convolution without bias that is there for equal widths too, weight 10
      next to KD of weight 1.
    - Here: CIRKD's form and weight, without KD (`fitnet@cirkd` has it); no code runs the two stages for segmentation.
    """

    title = "FitNet"
    source = "Romero et al., ICLR 2015, arXiv 1412.6550, eq. 3; form and weight of winycg/CIRKD @2d8ad0f"
    version = 1
    taps = ("pre_classifier",)

    weight: NonNegativeFloat = 10.0

    align: nn.Conv2d

    def build(self, student: Shapes, teacher: Shapes) -> dict[str, Part]:
        """`align`: a 1x1 convolution without bias to the teacher's width."""
        channels = student["pre_classifier"].channels, teacher["pre_classifier"].channels
        return {"align": Part(nn.Conv2d(*channels, kernel_size=1, bias=False))}

    def losses(self, student: Taps, teacher: Taps, target: Tensor, step: int) -> dict[str, Tensor]:
        """`fitnet`, the squared difference of the features."""
        f = self.align(student["pre_classifier"].float())
        return {"fitnet": self.weight * feature_mse(f, resize(teacher["pre_classifier"], f.shape[2:]))}
