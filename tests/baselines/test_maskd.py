from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from baselines.maskd import MasKD, mask_overlap, masked_logits, masked_mse, receptive_masks, token_loss
from benchmark.core.errors import KdsegError
from benchmark.method import IGNORE
from benchmark.spec.networks import TapShape
from tests.golden.cases import Case, cases, check

quick = settings(max_examples=20)
sizes = st.tuples(st.integers(1, 3), st.integers(2, 6), st.integers(1, 7), st.integers(1, 7))
seeds = st.integers(0, 2**31)
CLASSES = 4
SHAPES = {"logits": TapShape(channels=CLASSES, stride=8), "aux_logits": TapShape(channels=CLASSES, stride=8)}


def draw(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def built(**hyper) -> MasKD:
    torch.manual_seed(0)
    method = MasKD(**hyper)
    method.attach(SHAPES, SHAPES)
    return method


# Formulas ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("maskd.stage1"))
def test_overlap_and_masked_logits_equal_the_reference(case: Case) -> None:
    logits, tokens = case.tensor("teacher_logits"), case.tensor("mask_token", requires_grad=True)
    masks = receptive_masks(logits, tokens)
    outputs = {"dice": mask_overlap(masks), "masked_logits": masked_logits(logits, masks)}
    check(case, outputs, {"mask_token": tokens})


@pytest.mark.parametrize("case", cases("maskd.stage2"))
def test_masked_difference_equals_the_reference(case: Case) -> None:
    student, teacher = case.tensor("student_logits", requires_grad=True), case.tensor("teacher_logits")
    masks = receptive_masks(teacher, case.tensor("mask_token"))
    check(case, {"loss": masked_mse(student, teacher, masks)}, {"student_logits": student})


@quick
@given(sizes, seeds, st.integers(2, 5))
def test_overlap_is_that_of_every_pair_and_at_most_one(shape, seed, count) -> None:
    masks = draw((shape[0], count, *shape[2:]), seed).sigmoid()
    pairs = [
        2 * (image[a] * image[b]).sum() / (image[a].square().sum() + image[b].square().sum())
        for image in masks
        for a, b in itertools.permutations(range(count), 2)
    ]
    torch.testing.assert_close(mask_overlap(masks), torch.stack(pairs).mean())
    torch.testing.assert_close(mask_overlap(masks[:, :1].expand_as(masks)), torch.tensor(1.0))
    assert 0 <= mask_overlap(masks) <= 1 + 1e-6


def test_masks_apart_do_not_overlap() -> None:
    masks = torch.zeros(1, 2, 2, 2)
    masks[0, 0, 0], masks[0, 1, 1] = 1.0, 1.0
    assert mask_overlap(masks) == 0


@quick
@given(sizes, seeds)
def test_masked_difference_is_zero_at_the_teacher_and_positive_elsewhere(shape, seed) -> None:
    student, teacher = draw(shape, seed), draw(shape, seed + 1)
    masks = receptive_masks(teacher, draw((3, shape[1]), seed + 2))
    assert masked_mse(teacher, teacher, masks) == 0
    assert masked_mse(student, teacher, masks) > 0


@quick
@given(sizes, seeds, st.floats(0.1, 10))
def test_masked_difference_is_quadratic(shape, seed, factor) -> None:
    difference, teacher = draw(shape, seed), draw(shape, seed + 1)
    masks = draw((shape[0], 3, *shape[2:]), seed + 2).sigmoid()
    torch.testing.assert_close(
        masked_mse(teacher + factor * difference, teacher, masks),
        factor**2 * masked_mse(teacher + difference, teacher, masks),
        rtol=1e-3,
        atol=1e-6,
    )


def test_mask_is_squared_above_and_single_below() -> None:
    teacher, masks = draw((2, 3, 4, 5), 0), torch.full((2, 6, 4, 5), 0.5)
    # Half of the mean of 0.5^2 * 2^2 / 0.5, whatever the number of masks.
    assert masked_mse(teacher + 2, teacher, masks) == pytest.approx(1.0, rel=1e-5)


def test_where_no_mask_looks_nothing_is_asked() -> None:
    student, teacher = draw((1, 3, 2, 2), 0).requires_grad_(), draw((1, 3, 2, 2), 1)
    masks = torch.ones(1, 2, 2, 2)
    masks[..., 0] = 0.0
    masked_mse(student, teacher, masks).backward()
    assert not student.grad[..., 0].any() and student.grad[..., 1].all()


def test_masked_difference_of_low_precision_is_computed_in_float32() -> None:
    student, teacher = draw((1, 3, 4, 4), 0).half(), draw((1, 3, 4, 4), 1).half()
    tokens = draw((2, 3), 2)
    masks = receptive_masks(teacher, tokens)
    assert torch.equal(masks, receptive_masks(teacher.float(), tokens))
    assert torch.equal(masked_mse(student, teacher, masks), masked_mse(student.float(), teacher.float(), masks))


# Stage 1 -----------------------------------------------------------------------------------------------------------


def batches(count: int | None = None, ignored: bool = False) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    """Teachers that are right at most pixels, and labels of which a part is ignored."""
    for i in itertools.count() if count is None else range(count):
        random = torch.Generator().manual_seed(i)
        labels = torch.randint(0, CLASSES, (2, 3, 5), generator=random)
        logits = 3 * F.one_hot(labels, CLASSES).permute(0, 3, 1, 2) + torch.randn(2, CLASSES, 3, 5, generator=random)
        target = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
        target[:, :4] = IGNORE
        yield {"logits": logits}, torch.full_like(target, IGNORE) if ignored else target


def test_token_loss_is_cross_entropy_of_the_masked_logits_plus_overlap() -> None:
    taps, target = next(batches())
    tokens = draw((3, CLASSES), 0)
    masks = receptive_masks(taps["logits"], tokens)
    reweighted = taps["logits"] * masks.sum(1)[:, None]
    full = F.interpolate(reweighted, size=(24, 40), mode="bilinear", align_corners=True)
    expected = F.cross_entropy(full, target, ignore_index=IGNORE) + mask_overlap(masks)
    torch.testing.assert_close(token_loss(taps["logits"], target, tokens), expected)


def test_token_loss_of_ignored_labels_is_the_overlap() -> None:
    taps, target = next(batches(ignored=True))
    tokens = draw((3, CLASSES), 0)
    loss = token_loss(taps["logits"], target, tokens)
    torch.testing.assert_close(loss, mask_overlap(receptive_masks(taps["logits"], tokens)))


def test_tokens_are_learnt_by_sgd_with_polynomial_decay() -> None:
    method = built(tokens=3, stage1_iterations=4, stage1_lr=0.2)
    tokens, momentum = method.masks.tokens.clone(), torch.zeros(3, CLASSES)
    method.prepare(nn.Identity(), batches())
    for i, (taps, target) in enumerate(batches(4)):
        leaf = tokens.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(token_loss(taps["logits"], target, leaf), leaf)
        momentum = 0.9 * momentum + gradient + 1e-3 * tokens
        tokens = tokens - 0.2 * (1 - i / 4) ** 0.9 * momentum
    torch.testing.assert_close(method.masks.tokens, tokens)


def test_tokens_come_to_classify_and_to_part() -> None:
    method = built(tokens=3, stage1_iterations=60)
    taps, target = next(batches())
    before = token_loss(taps["logits"], target, method.masks.tokens)
    method.prepare(nn.Identity(), batches())
    assert token_loss(taps["logits"], target, method.masks.tokens) < before - 0.05


def test_stage_takes_as_many_batches_as_it_needs_and_stops_where_they_end() -> None:
    endless = batches()
    built(stage1_iterations=3).prepare(nn.Identity(), endless)
    assert torch.equal(next(endless)[0]["logits"], list(batches(4))[3][0]["logits"])
    method = built(stage1_iterations=1000)
    method.prepare(nn.Identity(), batches(2))
    assert method.masks.tokens.isfinite().all()


def test_tokens_stay_finite_without_a_label() -> None:
    method = built(stage1_iterations=3)
    method.prepare(nn.Identity(), batches(ignored=True))
    assert method.masks.tokens.isfinite().all()


def test_no_optimiser_of_the_training_changes_the_tokens_and_they_survive_saving() -> None:
    method = built(stage1_iterations=3)
    start = method.masks.tokens.clone()
    method.prepare(nn.Identity(), batches())
    assert list(method.parameters()) == []
    assert not torch.equal(method.masks.tokens, start) and not method.masks.tokens.requires_grad
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    torch.manual_seed(1)
    other = MasKD()
    other.attach(SHAPES, SHAPES)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.masks.tokens, method.masks.tokens)


def test_tokens_start_small() -> None:
    tokens = built(tokens=400).masks.tokens
    assert tokens.shape == (400, CLASSES)
    assert tokens.std().item() == pytest.approx(0.01, rel=0.1) and abs(tokens.mean().item()) < 0.01 / math.sqrt(100)


# Method ------------------------------------------------------------------------------------------------------------


def taps(seed: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    found = [draw((2, CLASSES, 4, 6), seed + i) for i in range(4)]
    return {"logits": found[0], "aux_logits": found[1]}, {"logits": found[2], "aux_logits": found[3]}


LABELS = torch.zeros(2, 32, 48, dtype=torch.long)


def test_weights_apply_to_their_terms_once() -> None:
    student, teacher = taps(0)
    method = built(weight=5.0, aux_weight=0.4)
    tokens = method.masks.tokens
    terms = method.losses(student, teacher, LABELS, 0)
    for name, tap, weight in (("maskd", "logits", 5.0), ("maskd_aux", "aux_logits", 2.0)):
        bare = masked_mse(student[tap], teacher[tap], receptive_masks(teacher[tap], tokens))
        torch.testing.assert_close(terms.pop(name), weight * bare)
    assert not terms


def test_auxiliary_term_needs_its_weight_and_both_networks() -> None:
    student, teacher = taps(0)
    assert built().losses(student, teacher, LABELS, 0).keys() == {"maskd"}
    assert built().taps == ("logits",) and built(aux_weight=0.4).taps == ("logits", "aux_logits")
    for lacking in (student, teacher):
        kept = lacking.pop("aux_logits")
        assert built(aux_weight=0.4).losses(student, teacher, LABELS, 0).keys() == {"maskd"}
        lacking["aux_logits"] = kept
    assert built(weight=0.0, aux_weight=0.4).losses(student, teacher, LABELS, 0) == {}


def test_teacher_is_resized_to_the_students_grid_and_masks_are_made_there() -> None:
    student, teacher = (side["logits"] for side in taps(0))
    fine = teacher.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    method = built()
    terms = [method.losses({"logits": student}, {"logits": z_t}, LABELS, 0)["maskd"] for z_t in (teacher, fine)]
    torch.testing.assert_close(*terms)  # half the size, bilinear: the mean of 2x2 equal cells


def test_one_token_is_refused_for_there_is_nothing_it_could_overlap() -> None:
    with pytest.raises(KdsegError, match="tokens"):
        MasKD(tokens=1)
