from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.afdcd import AfDCD, central_mask, contrast_grid, dense_contrast, patches
from baselines.mgd import Generator, generation_loss
from benchmark.spec.networks import TapShape
from tests.golden.cases import Case, cases, check

quick = settings(max_examples=30)
NAMES = {
    "projetor.0": "convolutions.0",
    "projetor.2": "convolutions.1",
    "align": "align",
    "block_1.0": "convolutions.0",
    "block_2.0": "convolutions.1",
    "adpator_1": "convolutions.2",
    "adpator_2": "convolutions.3",
}
"""Names in the reference's state dict (its spelling) and here."""


def random_map(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def our_name(key: str) -> str:
    layer, _, leaf = key.removeprefix("projetor.").rpartition(".")
    known = NAMES.get(key.rpartition(".")[0]) or NAMES.get(layer)
    return f"{known}.{leaf}"


@pytest.mark.parametrize("case", cases("afdcd"))
def test_reconstruction_and_contrast_equal_the_reference(case: Case) -> None:
    hyper, teacher = case.hyper, case.tensor("teacher_feat")
    student = case.tensor("student_feat", requires_grad=True)
    kind = "enhanced" if hyper["enhance_projector"] else "plain"
    generator = Generator(student.shape[1], teacher.shape[1], kind)
    ours = {key: our_name(key) for key in case.params}
    generator.load_state_dict({ours[key]: case.tensor(key) for key in case.params})
    keep = torch.from_numpy(case.rand["mask"]) if hyper["rand_mask"] else central_mask(student)
    generated = generator(student, keep)
    pool = 0 if hyper["dataset"] == "camvid" else hyper["pool_size"]
    outputs = {
        "fd": generation_loss(generated, teacher),
        "ctr": dense_contrast(generated, teacher, hyper["tau_ocd"], hyper["M_ocd"], pool, tuple(hyper["patch_size"])),
    }
    parameters = dict(generator.named_parameters())
    check(case, outputs, {"student_feat": student} | {key: parameters[name] for key, name in ours.items()})


def test_contrast_by_hand_in_float64() -> None:
    """An independent reference: loops over patches, positions and groups."""
    student, teacher = random_map(2, 6, 4, 6).double(), random_map(2, 6, 4, 6, seed=1).double()
    total, tau, groups = 0.0, 0.5, 3
    for n in range(2):
        for top, left in [(i, j) for i in (0, 2) for j in (0, 2, 4)]:
            places = [(top + i, left + j) for i in range(2) for j in range(2)]
            for place in places:
                for m in range(groups):
                    part = slice(2 * m, 2 * m + 2)
                    anchor = student[n, part, *place]
                    positive = -(anchor - teacher[n, part, *place]).abs().sum() / tau
                    negatives = [
                        -(anchor - teacher[n, 2 * g : 2 * g + 2, *other]).abs().sum() / tau
                        for g in range(groups)
                        if g != m
                        for other in places
                    ]
                    total += float(torch.logsumexp(torch.stack([positive, *negatives]), 0) - positive)
    found = dense_contrast(student.float(), teacher.float(), tau, groups, 0, (2, 2))
    assert found.item() == pytest.approx(total / (2 * 4 * 6), rel=1e-5)


@quick
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 6), st.integers(1, 6))
def test_there_is_a_patch_on_every_grid(h: int, w: int, pool: int, patch: int) -> None:
    pooling, (ph, pw) = contrast_grid((h, w), pool, (patch, patch))
    assert h // pooling >= ph >= 1 and w // pooling >= pw >= 1
    if min(h, w) >= max(pool, 1) * patch:
        assert (pooling, ph, pw) == (max(pool, 1), patch, patch)


def test_patches_hold_their_cells_and_leave_the_rest_out() -> None:
    x = torch.arange(2 * 5 * 7.0).view(1, 2, 5, 7)
    found = patches(x, (2, 3), 2)
    assert found.shape == (2 * 2, 6, 2, 1)
    assert torch.equal(found[0, :, 0, 0], x[0, 0, :2, :3].flatten())
    assert torch.equal(found[3, :, 1, 0], x[0, 1, 2:4, 3:6].flatten())


def test_a_perfect_student_has_less_loss_than_a_random_one() -> None:
    teacher = random_map(1, 8, 8, 8)
    assert dense_contrast(teacher, teacher, groups=4, pool=0) < dense_contrast(
        random_map(1, 8, 8, 8, seed=1), teacher, groups=4, pool=0
    )


def test_extreme_features_stay_finite() -> None:
    student = (1e4 * random_map(1, 8, 8, 8)).requires_grad_()
    loss = dense_contrast(student, 1e4 * random_map(1, 8, 8, 8, seed=1), groups=4, pool=0)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


def test_central_mask_hides_the_middle_third() -> None:
    keep = central_mask(torch.empty(1, 1, 9, 6))
    assert not keep[3:6, 2:4].any() and keep.sum() == 9 * 6 - 3 * 2


def shapes(channels: int) -> dict[str, TapShape]:
    return {"c4": TapShape(channels=channels, stride=8)}


def losses(student: int = 4, teacher: int = 6, **hyper) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    method = AfDCD(**hyper)
    method.attach(shapes(student), shapes(teacher))
    ours, theirs = random_map(1, student, 16, 16), random_map(1, teacher, 16, 16, seed=1)
    return method.losses({"c4": ours}, {"c4": theirs}, torch.zeros(1, 128, 128), 0)


def test_weights_apply_to_their_terms() -> None:
    usual, ones = losses(), losses(fd_weight=1.0, ctr_weight=1.0)
    torch.testing.assert_close(usual["fd"], 2e-6 * ones["fd"])
    torch.testing.assert_close(usual["ctr"], 0.005 * ones["ctr"])
    assert set(losses(fd_weight=0.0)) == {"ctr"} and set(losses(ctr_weight=0.0)) == {"fd"}


def test_channels_that_groups_do_not_divide_and_equal_widths_work() -> None:
    assert losses(teacher=7)["ctr"].isfinite() and losses(student=6, teacher=6)["fd"].isfinite()


def test_generator_is_clipped_as_one() -> None:
    part = AfDCD().build(shapes(4), shapes(6))["generator"]
    assert part.clip_norm == 15 and len(list(part.module.parameters())) == 2 + 4
    assert len(list(AfDCD(projector="enhanced").build(shapes(6), shapes(6))["generator"].module.parameters())) == 8


def test_all_finer_maps_are_averaged_first() -> None:
    torch.manual_seed(0)
    method = AfDCD(mask="central", ctr_weight=0.0, fd_weight=1.0)
    method.attach(shapes(4), shapes(6))
    fine, coarse = random_map(1, 4, 12, 12), random_map(1, 6, 6, 6, seed=1)
    terms = method.losses({"c4": fine}, {"c4": coarse}, torch.zeros(1, 96, 96), 0)
    pooled = F.avg_pool2d(fine, 2)
    torch.testing.assert_close(terms["fd"], generation_loss(method.generator(pooled, central_mask(pooled)), coarse))
