from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.dist import DIST, inter_class_kd, intra_class_kd
from benchmark.method import IGNORE
from tests.golden.cases import Case, cases, check

quick = settings(max_examples=20)
sizes = st.tuples(st.integers(1, 3), st.integers(2, 6), st.integers(2, 7), st.integers(2, 7))
seeds = st.integers(0, 2**31)
both = pytest.mark.parametrize("form", [inter_class_kd, intra_class_kd])
forms = st.sampled_from([inter_class_kd, intra_class_kd])


def logits(shape: tuple[int, ...], seed: int, magnitude: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return magnitude * torch.randn(shape, generator=random), magnitude * torch.randn(shape, generator=random)


@pytest.mark.parametrize("case", cases("dist"))
def test_terms_equal_the_reference(case: Case) -> None:
    student, teacher = case.tensor("student_logits", requires_grad=True), case.tensor("teacher_logits")
    inter, intra = inter_class_kd(student, teacher), intra_class_kd(student, teacher)
    loss = case.hyper["beta"] * inter + case.hyper["gamma"] * intra
    check(case, {"loss": loss, "inter": inter, "intra": intra}, {"student_logits": student})


# Mathematics -------------------------------------------------------------------------------------------------------


@quick
@given(sizes, seeds, forms, st.floats(1, 4))
def test_distance_is_zero_at_the_teacher_and_within_its_bounds(shape, seed, form, tau) -> None:
    student, teacher = logits(shape, seed)
    p = torch.softmax(teacher / tau, dim=1)
    p = p if form is inter_class_kd else p.transpose(0, 1).flatten(1)
    norms = (p - p.mean(1, keepdim=True)).square().sum(1)
    added = (1e-8 / (norms + 1e-8)).mean()  # the number that is added to the norms counts where they are small
    assert form(teacher, teacher, tau).abs() < tau**2 * (1.01 * added + 1e-5)
    assert 0 <= form(student, teacher, tau) <= 2 * tau**2


@quick
@given(sizes, seeds, forms)
def test_a_constant_added_to_all_classes_of_a_pixel_changes_nothing(shape, seed, form) -> None:
    student, teacher = logits(shape, seed)
    shift, _ = logits((shape[0], 1, *shape[2:]), seed + 1)
    torch.testing.assert_close(form(student + shift, teacher - shift), form(student, teacher), rtol=1e-4, atol=1e-5)


@quick
@given(sizes, seeds, forms)
def test_order_of_images_pixels_and_classes_does_not_matter(shape, seed, form) -> None:
    student, teacher = logits(shape, seed)
    for dims in ((0,), (1,), (2, 3)):
        torch.testing.assert_close(form(student.flip(dims), teacher.flip(dims)), form(student, teacher))


def test_correlation_does_not_ask_for_equal_probabilities() -> None:
    # Two classes: the probabilities of a pixel always lie on one line, so only who is ahead counts.
    teacher = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    assert inter_class_kd(0.2 * teacher, teacher).abs() < 1e-5
    assert inter_class_kd(-0.2 * teacher, teacher) == pytest.approx(2)


def test_classes_are_correlated_over_the_whole_batch() -> None:
    # Within each image every class is constant: only the two together have a correlation.
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(2, 2, 1, 1).expand(2, 2, 3, 3)
    assert intra_class_kd(student, 2 * student).abs() < 1e-5
    alone = [intra_class_kd(image[None], 2 * image[None]) for image in student]
    assert alone == pytest.approx([1, 1])


@both
def test_temperature_softens_and_scales_by_its_square(form) -> None:
    student, teacher = logits((2, 4, 3, 3), 0)
    torch.testing.assert_close(form(student, teacher, 2.0), 4 * form(student / 2, teacher / 2))


@both
@pytest.mark.parametrize("magnitude", [0.0, 1e-4, 1e4])
def test_constant_and_huge_logits_stay_finite(form, magnitude: float) -> None:
    student, teacher = logits((1, 4, 3, 3), 0, magnitude)
    student.requires_grad_()
    loss = form(student, teacher)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


# Ignored pixels ----------------------------------------------------------------------------------------------------


def slow(student: torch.Tensor, teacher: torch.Tensor, valid: torch.Tensor) -> tuple[float, float]:
    """Both terms of the pixels that count, by numpy's own correlation."""

    def rows(x: torch.Tensor) -> np.ndarray:
        return x.double().softmax(1).permute(0, 2, 3, 1)[valid].numpy()

    ours, theirs = rows(student), rows(teacher)
    inter = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(ours, theirs, strict=True)])
    intra = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(ours.T, theirs.T, strict=True)])
    return inter, intra


def test_masked_terms_are_those_of_the_pixels_that_count() -> None:
    student, teacher = logits((2, 4, 5, 6), 0)
    valid = torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(1)) > 0.4
    masked = inter_class_kd(student, teacher, 1.0, valid), intra_class_kd(student, teacher, 1.0, valid)
    assert [x.item() for x in masked] == pytest.approx(slow(student, teacher, valid), rel=1e-5)


@both
def test_pixels_that_do_not_count_change_nothing_and_get_no_gradient(form) -> None:
    student, teacher = logits((2, 4, 5, 6), 0)
    valid = torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(1)) > 0.4
    other = torch.where(valid[:, None], student, 0.5 - student).requires_grad_()
    loss = form(other, teacher, 1.0, valid)
    torch.testing.assert_close(loss, form(student, teacher, 1.0, valid))
    loss.backward()
    assert other.grad.abs().sum() > 0 and not other.grad[~valid[:, None].expand_as(other)].any()


@both
def test_counting_all_pixels_is_the_same_as_no_mask(form) -> None:
    student, teacher = logits((2, 4, 5, 6), 0)
    everywhere = torch.ones(2, 5, 6, dtype=torch.bool)
    torch.testing.assert_close(form(student, teacher, 1.0, everywhere), form(student, teacher))


# Method ------------------------------------------------------------------------------------------------------------


def taps(seed: int, aux: bool = True) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    student, teacher = logits((2, 4, 4, 6), seed)
    found = {"logits": student}, {"logits": teacher}
    if aux:
        for side, x in zip(found, logits((2, 4, 4, 6), seed + 1), strict=True):
            side["aux_logits"] = x
    return found


LABELS = torch.zeros(2, 32, 48, dtype=torch.long)


def test_weights_apply_to_their_terms_once() -> None:
    given = taps(0)
    ones = DIST(aux_weight=1.0).losses(*given, LABELS, 0)
    terms = DIST(beta=2.0, gamma=3.0, weight=5.0, aux_weight=0.4).losses(*given, LABELS, 0)
    factors = {"inter": 10.0, "intra": 15.0, "aux_inter": 4.0, "aux_intra": 6.0}
    assert {name: x.item() for name, x in terms.items()} == pytest.approx(
        {name: factor * ones[name].item() for name, factor in factors.items()}
    )


def test_terms_without_weight_are_left_out() -> None:
    given = taps(0)
    assert DIST().losses(*given, LABELS, 0).keys() == {"inter", "intra"}
    assert DIST(beta=0.0).losses(*given, LABELS, 0).keys() == {"intra"}
    assert DIST(gamma=0.0, aux_weight=0.4).losses(*given, LABELS, 0).keys() == {"inter", "aux_inter"}
    assert DIST().taps == ("logits",) and DIST(aux_weight=0.4).taps == ("logits", "aux_logits")


@pytest.mark.parametrize("lacking", [0, 1])
def test_auxiliary_terms_need_both_networks(lacking: int) -> None:
    given = taps(0)
    del given[lacking]["aux_logits"]
    assert DIST(aux_weight=0.4).losses(*given, LABELS, 0).keys() == {"inter", "intra"}


def test_ignored_pixels_count_unless_masked() -> None:
    given = taps(0, aux=False)
    labels = LABELS.clone()
    labels[:, :16] = IGNORE
    valid = torch.ones(2, 4, 6, dtype=torch.bool)
    valid[:, :2] = False
    kept, masked = DIST().losses(*given, labels, 0), DIST(ignored="mask").losses(*given, labels, 0)
    student, teacher = (side["logits"] for side in given)
    assert torch.equal(kept["inter"], inter_class_kd(student, teacher))
    assert torch.equal(masked["inter"], inter_class_kd(student, teacher, valid=valid))
    assert torch.equal(masked["intra"], intra_class_kd(student, teacher, valid=valid))
    assert masked["inter"] != kept["inter"] and masked["intra"] != kept["intra"]


def test_masked_terms_are_zero_with_zero_gradient_if_all_pixels_are_ignored() -> None:
    student, teacher = taps(0, aux=False)
    student["logits"].requires_grad_()
    terms = DIST(ignored="mask").losses(student, teacher, torch.full_like(LABELS, IGNORE), 0)
    assert terms["inter"] == 0 and terms["intra"] == 0
    sum(terms.values()).backward()
    assert not student["logits"].grad.any()


def test_teacher_is_resized_to_the_students_grid() -> None:
    student, _ = logits((2, 4, 4, 6), 0)
    fine = student.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    terms = DIST().losses({"logits": student}, {"logits": fine}, LABELS, 0)
    assert all(term.abs() < 1e-4 for term in terms.values())  # half the size, bilinear: the mean of 2x2 equal cells
