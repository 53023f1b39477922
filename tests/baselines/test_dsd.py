from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.dsd import DSD, attention_residuals, class_similarity_kd, pixel_similarity_kd
from tests.golden.cases import Case, cases, check

quick = settings(max_examples=20)
TARGET = torch.zeros(1, 32, 32, dtype=torch.long)


def random_map(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("case", cases("dsd.psd"))
def test_pixel_similarity_equals_the_reference(case: Case) -> None:
    names = [name for name in ("aux", "feat", "logits") if f"student_{name}" in case.inputs]
    leaves = {f"student_{name}": case.tensor(f"student_{name}", requires_grad=True) for name in names}
    teacher = [case.tensor(f"teacher_{name}") for name in ("aux", "feat", "logits") if f"teacher_{name}" in case.inputs]
    student = list(leaves.values())
    if case.hyper["mode"] != "aux":
        student = [student[-1], *student]
    if case.hyper["mode"] == "noaux":
        teacher = [teacher[-1], *teacher]
    loss = pixel_similarity_kd(student, teacher)
    outputs = {"loss": loss}
    if "out.clean_grad_student_logits" in case.expected:
        z = leaves["student_logits"]
        (outputs["clean_grad_student_logits"],) = torch.autograd.grad(loss, z, retain_graph=True)
    check(case, outputs, leaves)


@pytest.mark.parametrize("case", cases("dsd.csd"))
def test_class_similarity_equals_the_reference(case: Case) -> None:
    student = case.tensor("student_logits", requires_grad=True)
    check(case, {"loss": class_similarity_kd(student, case.tensor("teacher_logits"))}, {"student_logits": student})


@quick
@given(st.integers(1, 2), st.integers(2, 4), st.integers(1, 7), st.integers(1, 7), st.integers(0, 99))
def test_both_are_zero_at_the_teacher_and_never_negative(n: int, k: int, h: int, w: int, seed: int) -> None:
    maps = [random_map(n, c, h, w, seed=seed + c) for c in (3, 5)] + [random_map(n, k, h, w, seed=seed)]
    others = [random_map(n, c, h, w, seed=seed + 50 + c) for c in (2, 6)] + [random_map(n, k, h, w, seed=seed + 50)]
    assert pixel_similarity_kd(maps, maps) == 0 and class_similarity_kd(maps[2], maps[2]) == 0
    assert pixel_similarity_kd(others, maps) >= 0 and class_similarity_kd(others[2], maps[2]) >= 0


def test_a_map_that_stands_twice_has_no_residual_and_no_huge_gradient() -> None:
    z, f = random_map(1, 3, 4, 4).requires_grad_(), random_map(1, 5, 4, 4, seed=1).requires_grad_()
    residuals = attention_residuals([z, f, z], (4, 4))
    assert not residuals[1].any() and not residuals[1].requires_grad
    teacher = [random_map(1, 3, 4, 4, seed=seed) for seed in (2, 3, 4)]
    pixel_similarity_kd([z, f, z], teacher).backward()
    assert z.grad.any() and z.grad.abs().max() < 10


def taps(aux: bool, seed: int = 0) -> dict[str, torch.Tensor]:
    found = {
        "c3": random_map(1, 6, 2, 2, seed=seed),
        "pre_classifier": random_map(1, 4, 8, 8, seed=seed + 1),
        "logits": random_map(1, 3, 8, 8, seed=seed + 2),
    }
    return found | ({"aux_logits": random_map(1, 3, 4, 4, seed=seed + 3)} if aux else {})


def test_first_map_is_the_auxiliary_logits_else_c3_else_as_released_the_logits() -> None:
    with_aux, without = taps(True), taps(False)
    assert DSD().maps(with_aux)[0] is with_aux["aux_logits"]
    assert DSD().maps(without)[0] is without["c3"]
    assert DSD(first="as_released").maps(with_aux)[0] is with_aux["aux_logits"]
    del without["c3"]  # it does not ask for it then
    assert "c3" not in DSD(first="as_released").taps
    assert DSD(first="as_released").maps(without)[0] is without["logits"]


def test_maps_of_any_stride_meet_on_the_grid_of_the_students_logits() -> None:
    terms = DSD().losses(taps(False), taps(True, seed=9), TARGET, 0)
    assert all(value.isfinite() for value in terms.values())
    assert attention_residuals([random_map(1, 2, 3, 3), random_map(1, 4, 9, 9)], (5, 4))[0].shape == (1, 20)


def test_weights_apply_to_their_terms() -> None:
    student, teacher = taps(True), taps(True, seed=9)
    usual = DSD().losses(student, teacher, TARGET, 0)
    ones = DSD(psd_weight=1.0, csd_weight=1.0).losses(student, teacher, TARGET, 0)
    torch.testing.assert_close(usual["psd"], 1000 * ones["psd"])
    torch.testing.assert_close(usual["csd"], 10 * ones["csd"])
    assert set(DSD(csd_weight=0.0).losses(student, teacher, TARGET, 0)) == {"psd"}
    assert set(DSD(psd_weight=0.0).losses(student, teacher, TARGET, 0)) == {"csd"}
