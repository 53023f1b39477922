from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.ifvd import IFVD, intra_class_variation, variation_kd
from benchmark.bench.plain_losses import plain_variation
from benchmark.method import IGNORE
from benchmark.method.grids import labels_on
from benchmark.spec.networks import TapShape
from tests.golden.cases import Case, cases, check

quick = settings(max_examples=20)


def random_map(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_labels(n: int, h: int, w: int, classes: int, seed: int = 0) -> torch.Tensor:
    found = torch.randint(0, classes + 1, (n, h, w), generator=torch.Generator().manual_seed(seed))
    return found.where(found < classes, IGNORE)


@pytest.mark.parametrize("case", cases("ifvd"))
def test_variation_loss_equals_the_reference(case: Case) -> None:
    student = case.tensor("student_feat", requires_grad=True)
    labels = labels_on(case.tensor("label").long(), student.shape[2:])
    loss = variation_kd(student, case.tensor("teacher_feat"), labels, case.hyper["num_classes"])
    check(case, {"loss": loss}, {"student_feat": student})


def test_variation_by_hand_in_float64() -> None:
    """An independent reference: loops over pixels and classes."""
    x, labels = random_map(2, 3, 4, 5), random_labels(2, 4, 5, 3)
    found = intra_class_variation(x, labels, 3)
    for n in range(2):
        for k in range(3):
            places = [(i, j) for i in range(4) for j in range(5) if labels[n, i, j] == k]
            centre = [sum(float(x[n, c, i, j]) for i, j in places) / max(len(places), 1) for c in range(3)]
            for i, j in places:
                pixel = [float(v) for v in x[n, :, i, j]]
                cosine = sum(a * b for a, b in zip(pixel, centre, strict=True)) / (
                    math.hypot(*pixel) * math.hypot(*centre)
                )
                assert found[n, i, j].item() == pytest.approx(cosine, abs=1e-5)


@quick
@given(st.integers(1, 2), st.integers(2, 6), st.integers(1, 6), st.integers(0, 99), st.floats(0.1, 10))
def test_variation_is_zero_at_the_teacher_whatever_its_scale(n: int, h: int, w: int, seed: int, factor: float) -> None:
    x, labels = random_map(n, 4, h, w, seed=seed), random_labels(n, h, w, 3, seed)
    assert variation_kd(factor * x, x, labels, 3) < 1e-9
    assert variation_kd(random_map(n, 5, h, w, seed=seed + 1), x, labels, 3) >= 0


@quick
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_variation_is_the_form_with_a_mean_per_pixel(n: int, h: int, w: int, classes: int, seed: int) -> None:
    labels = random_labels(n, h, w, classes, seed)
    student, weight = random_map(n, 4, h, w, seed=seed), random_map(n, h, w, seed=seed + 1)
    values, gradients = [], []
    for form in (intra_class_variation, plain_variation):
        leaf = student.clone().requires_grad_()
        value = form(leaf, labels, classes)
        (value * weight).sum().backward()
        values.append(value.detach())
        gradients.append(leaf.grad)
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


def test_ignored_pixels_add_nothing_and_count_in_the_mean_unless_masked() -> None:
    student, teacher, labels = random_map(1, 4, 4, 4), random_map(1, 4, 4, 4, seed=1), random_labels(1, 4, 4, 2)
    labels[0, :2] = IGNORE
    keep, mask = (variation_kd(student, teacher, labels, 2, rule) for rule in ("keep", "mask"))
    valid = (labels != IGNORE).sum()
    torch.testing.assert_close(keep * 16, mask * valid)
    changed = student.clone()
    changed[:, :, :2] = 7.0
    torch.testing.assert_close(variation_kd(changed, teacher, labels, 2), keep)


@pytest.mark.parametrize("rule", ["keep", "mask"])
def test_all_ignored_gives_zero(rule: str) -> None:
    student = random_map(1, 4, 4, 4).requires_grad_()
    loss = variation_kd(student, random_map(1, 4, 4, 4, seed=1), torch.full((1, 4, 4), IGNORE), 3, rule)
    loss.backward()
    assert loss == 0 and not student.grad.any()


def test_features_without_direction_get_no_huge_gradient() -> None:
    student = random_map(1, 4, 4, 4)
    student[:, :, 0, 0] = 0
    student.requires_grad_()
    variation_kd(student, random_map(1, 4, 4, 4, seed=1), torch.zeros(1, 4, 4, dtype=torch.long), 1).backward()
    assert student.grad.abs().max() < 10


def test_gradient_flows_through_the_class_centres() -> None:
    """With the mean held fixed, the gradient would be another one: finite differences see the mean move."""
    student = random_map(1, 2, 2, 2).double().requires_grad_()
    labels = torch.zeros(1, 2, 2, dtype=torch.long)
    (gradient,) = torch.autograd.grad(intra_class_variation(student, labels, 1)[0, 0, 0], student)
    moved = [student.detach().clone() for _ in range(2)]
    moved[0][0, 0, 1, 1] += 1e-2
    moved[1][0, 0, 1, 1] -= 1e-2
    plus, minus = (intra_class_variation(x, labels, 1)[0, 0, 0] for x in moved)
    assert gradient[0, 0, 1, 1].item() == pytest.approx(float(plus - minus) / 2e-2, rel=1e-2)


def test_labels_and_teacher_come_to_the_students_grid_and_the_weight_is_applied_once() -> None:
    shapes = {"logits": TapShape(channels=3, stride=8)}
    method = IFVD(weight=2.0)
    method.attach(shapes, shapes)
    student, coarse, target = random_map(1, 4, 4, 6), random_map(1, 5, 2, 3, seed=1), random_labels(1, 32, 48, 3)
    terms = method.losses({"pre_classifier": student}, {"pre_classifier": coarse}, target, 0)
    fine = torch.nn.functional.interpolate(coarse, size=(4, 6), mode="bilinear")
    torch.testing.assert_close(terms["ifvd"], 2 * variation_kd(student, fine, labels_on(target, (4, 6)), 3))
