from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.cwd import CWD, channel_kl
from benchmark.spec.networks import TapShape
from tests.golden.cases import Case, cases, check

quick = settings(max_examples=20)
sizes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 7), st.integers(2, 7))
seeds = st.integers(0, 2**31)


def maps(shape: tuple[int, ...], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(shape, generator=random), 3 * torch.randn(shape, generator=random)


def shapes(channels: int) -> dict[str, TapShape]:
    return {"logits": TapShape(channels=5, stride=8), "pre_classifier": TapShape(channels=channels, stride=8)}


@pytest.mark.parametrize("case", cases("cwd.logits"))
def test_logit_term_equals_the_reference(case: Case) -> None:
    student = case.tensor("student_logits", requires_grad=True)
    loss = channel_kl(student, case.tensor("teacher_logits"), case.hyper["T"])
    check(case, {"loss": loss}, {"student_logits": student})


@pytest.mark.parametrize("case", cases("cwd.logits_underflow"))
def test_logit_term_is_exact_where_the_released_one_underflows(case: Case) -> None:
    student = case.tensor("student_logits", requires_grad=True)
    loss = channel_kl(student, case.tensor("teacher_logits"), case.hyper["T"])
    check(case, {"loss_exact": loss}, {"student_logits": student})


@pytest.mark.parametrize("case", cases("cwd.feature"))
def test_feature_term_equals_the_reference(case: Case) -> None:
    f, f_t = case.tensor("student_feat", requires_grad=True), case.tensor("teacher_feat")
    method = CWD(tau=case.hyper["T"], weight=0.0, feature_weight=1.0, divisor="student_channels")
    method.attach(shapes(f.shape[1]), shapes(f_t.shape[1]))
    leaves = {"student_feat": f}
    if "conv.weight" in case.params:
        method.align.weight.data.copy_(case.tensor("conv.weight"))
        leaves["conv.weight"] = method.align.weight
    z = torch.zeros(len(f), 5, *f.shape[2:])
    terms = method.losses({"logits": z, "pre_classifier": f}, {"logits": z, "pre_classifier": f_t}, torch.empty(0), 0)
    check(case, {"loss": terms["cwd_feature"]}, leaves)


@quick
@given(sizes, seeds, st.floats(0.5, 8))
def test_divergence_is_zero_at_the_teacher_and_positive_elsewhere(shape, seed, tau) -> None:
    student, teacher = maps(shape, seed)
    assert channel_kl(teacher, teacher, tau).abs() < 1e-5
    assert channel_kl(student, teacher, tau) > 0


@quick
@given(sizes, seeds)
def test_a_constant_added_to_a_channel_changes_nothing(shape, seed) -> None:
    student, teacher = maps(shape, seed)
    shift, _ = maps((*shape[:2], 1, 1), seed + 1)
    torch.testing.assert_close(
        channel_kl(student + shift, teacher - shift), channel_kl(student, teacher), rtol=1e-4, atol=1e-5
    )


@quick
@given(sizes, seeds)
def test_order_of_images_channels_and_positions_does_not_matter(shape, seed) -> None:
    student, teacher = maps(shape, seed)
    for dim in range(4):
        torch.testing.assert_close(channel_kl(student.flip(dim), teacher.flip(dim)), channel_kl(student, teacher))


@quick
@given(sizes, seeds)
def test_divisor_of_one_gives_the_sum_over_channels(shape, seed) -> None:
    student, teacher = maps(shape, seed)
    torch.testing.assert_close(channel_kl(student, teacher, divisor=1), shape[1] * channel_kl(student, teacher))


def test_feature_term_is_a_mean_over_the_channels_it_sums() -> None:
    student, teacher = maps((2, 6, 4, 4), 0)
    method = CWD(feature_weight=1.0)
    method.attach(shapes(3), shapes(6))
    z = torch.zeros(2, 5, 4, 4)
    f = student[:, :3]
    terms = method.losses({"logits": z, "pre_classifier": f}, {"logits": z, "pre_classifier": teacher}, z, 0)
    expected = channel_kl(F.conv2d(f, method.align.weight), teacher, tau=4.0)
    torch.testing.assert_close(terms["cwd_feature"], expected)


def test_align_is_built_only_for_features_of_different_width() -> None:
    assert CWD().build(shapes(3), shapes(6)) == {}
    assert CWD(feature_weight=1.0).build(shapes(6), shapes(6)) == {}
    align = CWD(feature_weight=1.0).build(shapes(3), shapes(6))["align"].module
    assert align.weight.shape == (6, 3, 1, 1) and align.bias is None


def test_teacher_is_resized_to_the_students_grid() -> None:
    student, _ = maps((1, 5, 4, 6), 0)
    fine = student.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert CWD().losses({"logits": student}, {"logits": fine}, torch.empty(0), 0)["cwd"].abs() < 1e-5
