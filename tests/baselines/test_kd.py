from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.kd import KD, pixel_kd
from tests.golden.cases import Case, cases, check

quick = settings(max_examples=20)
sizes = st.tuples(st.integers(1, 3), st.integers(2, 6), st.integers(1, 7), st.integers(1, 7))
seeds = st.integers(0, 2**31)
reductions = st.sampled_from(["pixel", "element", "skd_original"])


def logits(shape: tuple[int, ...], seed: int, magnitude: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return magnitude * torch.randn(shape, generator=random), magnitude * torch.randn(shape, generator=random)


def check_golden(case: Case, reduction: str, tau: float) -> None:
    student = case.tensor("student_logits", requires_grad=True)
    loss = pixel_kd(student, case.tensor("teacher_logits"), tau, reduction)
    check(case, {"loss": loss}, {"student_logits": student})


@pytest.mark.parametrize("case", cases("kd.pixel_kl"))
def test_pixel_reduction_equals_the_reference(case: Case) -> None:
    check_golden(case, "pixel", case.hyper["T"])


@pytest.mark.parametrize("case", cases("kd.elementwise_mean"))
def test_element_reduction_equals_the_reference(case: Case) -> None:
    check_golden(case, "element", case.hyper["T"])


@pytest.mark.parametrize("case", cases("kd.skd_original_pixelwise"))
def test_skd_original_reduction_equals_the_reference(case: Case) -> None:
    check_golden(case, "skd_original", 1.0)


@quick
@given(sizes, seeds, st.sampled_from(["pixel", "element"]), st.floats(0.5, 8))
def test_divergence_is_zero_at_the_teacher_and_positive_elsewhere(shape, seed, reduction, tau) -> None:
    student, teacher = logits(shape, seed)
    assert pixel_kd(teacher, teacher, tau, reduction).abs() < 1e-6
    assert pixel_kd(student, teacher, tau, reduction) > 0


@quick
@given(sizes, seeds, reductions)
def test_a_constant_added_to_all_classes_of_a_pixel_changes_nothing(shape, seed, reduction) -> None:
    student, teacher = logits(shape, seed)
    shift, _ = logits((shape[0], 1, *shape[2:]), seed + 1)
    torch.testing.assert_close(
        pixel_kd(student + shift, teacher - shift, 2.0, reduction), pixel_kd(student, teacher, 2.0, reduction)
    )


@quick
@given(sizes, seeds, reductions)
def test_order_of_images_does_not_matter(shape, seed, reduction) -> None:
    student, teacher = logits(shape, seed)
    torch.testing.assert_close(
        pixel_kd(student.flip(0), teacher.flip(0), 1.0, reduction), pixel_kd(student, teacher, 1.0, reduction)
    )


@quick
@given(sizes, seeds)
def test_element_is_pixel_over_the_classes_at_tau_one(shape, seed) -> None:
    student, teacher = logits(shape, seed)
    torch.testing.assert_close(
        pixel_kd(student, teacher, 1.0, "element") * shape[1], pixel_kd(student, teacher, 1.0, "pixel")
    )


@quick
@given(sizes, seeds, reductions)
def test_pixels_that_do_not_count_change_nothing(shape, seed, reduction) -> None:
    student, teacher = logits(shape, seed)
    n, _, h, w = shape
    valid = torch.rand((n, h, w), generator=torch.Generator().manual_seed(seed)) > 0.5
    other = torch.where(valid[:, None], student, torch.tensor(float("inf")))
    torch.testing.assert_close(
        pixel_kd(other, teacher, 1.0, reduction, valid), pixel_kd(student, teacher, 1.0, reduction, valid)
    )


@pytest.mark.parametrize("reduction", ["pixel", "element", "skd_original"])
def test_masked_loss_is_zero_if_all_pixels_are_ignored(reduction: str) -> None:
    student, teacher = logits((2, 3, 4, 5), 0)
    method = KD(ignored="mask", reduction=reduction)
    terms = method.losses({"logits": student}, {"logits": teacher}, torch.full((2, 32, 40), 255), 0)
    assert terms["kd"] == 0


def test_huge_logits_stay_finite() -> None:
    student, teacher = logits((1, 4, 3, 3), 0, magnitude=1e4)
    student.requires_grad_()
    loss = pixel_kd(student, teacher)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


def test_low_precision_logits_are_computed_in_float32() -> None:
    student, teacher = (x.bfloat16() for x in logits((1, 4, 3, 3), 0))
    assert torch.equal(pixel_kd(student, teacher), pixel_kd(student.float(), teacher.float()))


def test_teacher_is_resized_to_the_students_grid() -> None:
    student, _ = logits((1, 3, 4, 6), 0)
    fine = student.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    terms = KD().losses({"logits": student}, {"logits": fine}, torch.zeros(1, 32, 48, dtype=torch.long), 0)
    assert terms["kd"].abs() < 1e-6  # half the size, bilinear: the mean of 2x2 equal cells
