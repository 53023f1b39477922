from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from baselines.fitnet import FitNet, feature_mse
from benchmark.spec.networks import TapShape
from tests.golden.cases import Case, cases, check


def shapes(channels: int) -> dict[str, TapShape]:
    return {"pre_classifier": TapShape(channels=channels, stride=8)}


@pytest.mark.parametrize("case", cases("fitnet"))
def test_feature_loss_equals_the_reference(case: Case) -> None:
    student, weight = case.tensor("student_feat", requires_grad=True), case.tensor("conv.weight", requires_grad=True)
    loss = feature_mse(F.conv2d(student, weight), case.tensor("teacher_feat"))
    check(case, {"loss": loss}, {"student_feat": student, "conv.weight": weight})


@pytest.mark.parametrize("widths", [(4, 6), (4, 4)])
def test_alignment_is_a_convolution_without_bias_for_equal_widths_too(widths: tuple[int, int]) -> None:
    align = FitNet().build(*(shapes(width) for width in widths))["align"].module
    assert isinstance(align, nn.Conv2d) and align.bias is None
    assert align.weight.shape == (widths[1], widths[0], 1, 1)


def test_teacher_is_resized_and_the_weight_applied_once() -> None:
    method = FitNet(weight=3.0)
    method.attach(shapes(2), shapes(2))
    nn.init.dirac_(method.align.weight)
    student = torch.randn(1, 2, 4, 6)
    fine = (student + 1).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    terms = method.losses({"pre_classifier": student}, {"pre_classifier": fine}, torch.zeros(1, 32, 48), 0)
    torch.testing.assert_close(terms["fitnet"], torch.tensor(3.0))  # everywhere 1 away
