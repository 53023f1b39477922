from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.at import AT, attention, attention_kd, energy
from tests.golden.cases import Case, cases, check

quick = settings(max_examples=20)
sizes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))


def random_map(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("case", cases("at"))
def test_attention_loss_equals_the_reference(case: Case) -> None:
    student = case.tensor("student_feat", requires_grad=True)
    check(case, {"loss": attention_kd(student, case.tensor("teacher_feat"))}, {"student_feat": student})


@quick
@given(sizes, st.floats(0.01, 100), st.integers(0, 99))
def test_attention_sees_neither_scale_nor_sign_nor_the_order_of_channels(shape, factor: float, seed: int) -> None:
    x = random_map(shape, seed)
    assert attention_kd(x, x) == 0
    assert attention_kd(-factor * x.flip(1), x).abs() < 1e-10
    assert attention_kd(random_map(shape, seed + 1), x) >= 0


def test_energy_and_attention_by_hand() -> None:
    x = torch.tensor([[[[3.0, 0.0]], [[1.0, 2.0]]]])  # two channels, two positions
    assert torch.equal(energy(x), torch.tensor([[[[5.0, 2.0]]]]))
    torch.testing.assert_close(attention(energy(x)), torch.tensor([[5.0, 2.0]]) / 29**0.5)


def test_teachers_energy_is_resized_before_it_is_normalised() -> None:
    student = random_map((2, 3, 4, 6))
    fine = student.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert attention_kd(student, fine).abs() < 1e-12


def test_features_without_energy_have_a_finite_gradient() -> None:
    x = torch.zeros(1, 2, 3, 3, requires_grad=True)
    attention_kd(x, random_map((1, 2, 3, 3))).backward()
    assert x.grad.isfinite().all()


def test_weight_is_applied_once() -> None:
    student, teacher = random_map((1, 3, 4, 4)), random_map((1, 5, 4, 4), 1)
    terms = AT().losses({"pre_classifier": student}, {"pre_classifier": teacher}, torch.zeros(1, 4, 4), 0)
    torch.testing.assert_close(terms["at"], 10_000 * attention_kd(student, teacher))
