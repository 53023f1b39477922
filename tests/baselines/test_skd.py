from __future__ import annotations

import math
import re
import zlib
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines import skd
from baselines.skd import (
    SKD,
    SMALLEST,
    Discriminator,
    SpectralConv2d,
    adversary_size,
    hinge_adversary,
    pairwise_kd,
    pairwise_kd_original,
)
from benchmark.bench.plain_losses import plain_pairwise
from benchmark.spec.networks import TapShape
from tests.golden.cases import Case, cases, check

quick = settings(max_examples=20)
sizes = st.tuples(st.integers(1, 3), st.integers(2, 6), st.integers(1, 9), st.integers(2, 9))
seeds = st.integers(0, 2**31)
forms = st.sampled_from([pairwise_kd, pairwise_kd_original])


def maps(shape: tuple[int, ...], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random), torch.randn(shape, generator=random)


# Pair-wise ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("skd.pair_wise"))
def test_pairwise_equals_the_reference(case: Case) -> None:
    student = case.tensor("student_feat", requires_grad=True)
    check(case, {"loss": pairwise_kd(student, case.tensor("teacher_feat"))}, {"student_feat": student})


@pytest.mark.parametrize("case", cases("skd.pair_wise_original"))
def test_original_pairwise_equals_the_reference(case: Case) -> None:
    student = case.tensor("student_feat", requires_grad=True)
    loss = pairwise_kd_original(student, case.tensor("teacher_feat"), case.hyper["scale"])
    check(case, {"loss": loss}, {"student_feat": student})


@quick
@given(sizes, seeds, forms)
def test_pairwise_is_zero_at_the_teacher_and_never_negative(shape, seed, form) -> None:
    student, teacher = maps(shape, seed)
    assert form(teacher, teacher) == 0
    assert form(student, teacher) >= 0


@quick
@given(sizes, seeds, forms, st.floats(0.1, 10))
def test_pairwise_does_not_see_the_scale_of_an_image(shape, seed, form, factor) -> None:
    student, teacher = maps(shape, seed)
    torch.testing.assert_close(form(factor * student, teacher), form(student, teacher), rtol=1e-4, atol=1e-6)


@quick
@given(sizes, seeds, forms)
def test_pairwise_does_not_see_the_order_of_images_and_channels(shape, seed, form) -> None:
    student, teacher = maps(shape, seed)
    torch.testing.assert_close(form(student.flip(0), teacher.flip(0)), form(student, teacher))
    torch.testing.assert_close(form(student.flip(1), teacher), form(student, teacher))


@quick
@given(sizes, seeds, st.integers(1, 5))
def test_pairwise_in_rows_is_the_plain_form(shape, seed, rows) -> None:
    student, teacher = maps(shape, seed)
    values, gradients = [], []
    for form in (pairwise_kd, plain_pairwise):
        leaf = student.clone().requires_grad_()
        with patch.object(skd, "ROWS", rows):
            loss = form(leaf, teacher)
        (3 * loss).backward()
        values.append(loss.detach())
        gradients.append(leaf.grad)
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_pairwise_gradient_of_an_all_zero_feature_is_finite() -> None:
    student = torch.zeros(1, 4, 6, 6, requires_grad=True)
    (pairwise_kd(student, maps((1, 4, 6, 6), 0)[1]) + pairwise_kd_original(student, student.detach() + 1)).backward()
    assert student.grad.isfinite().all()


# Adversary ---------------------------------------------------------------------------------------------------------


def discriminator_values(key: str, shape: list[int], gamma: float) -> np.ndarray:
    """The value of one tensor of the golden discriminator, by the recipe that the cases were recorded with."""
    random = np.random.Generator(np.random.Philox(seed=zlib.crc32(f"D.{key}".encode())))
    uniform = random.random(math.prod(shape)).reshape(shape)
    unit = (2 * uniform - 1) * math.sqrt(3.0)
    leaf = key.rpartition(".")[2]
    if leaf == "gamma":
        return np.full(shape, gamma)
    if leaf == "num_batches_tracked":
        return np.zeros(shape)
    if leaf == "running_var":
        return 0.5 + uniform
    if leaf in ("weight_u", "weight_v"):
        return unit / np.linalg.norm(unit)
    if len(shape) >= 2:
        return unit * math.sqrt(2.0 / math.prod(shape[1:]))
    return 1 + 0.1 * unit if leaf == "weight" else 0.1 * unit


def our_name(key: str) -> str:
    """The name that a tensor of the reference discriminator has in `Discriminator`."""
    key = re.sub(r"^l(\d)\.0\.module\.", r"down\1.0.", key)
    key = key.replace("weight_bar", "weight").replace("weight_u", "u").replace("weight_v", "v")
    key = re.sub(r"^attn(\d)\.", r"attention\1.", key).replace("_conv.", ".")
    return re.sub(r"^last\.0\.", "last.", key).replace("preprocess_additional.", "norm.")


def golden_discriminator(case: Case) -> Discriminator:
    discriminator = Discriminator(case.hyper["input_channel"])
    state = {
        our_name(key): torch.tensor(discriminator_values(key, shape, case.hyper["gamma"]), dtype=torch.float32)
        for key, shape in case.hyper["param_keys"].items()
    }
    discriminator.load_state_dict(state)
    return discriminator


@pytest.mark.parametrize("case", cases("skd.holistic"))
def test_adversary_equals_the_reference(case: Case) -> None:
    student = case.tensor("student_logits", requires_grad=True)
    discriminator = golden_discriminator(case)
    scores: list[torch.Tensor] = []
    discriminator.register_forward_hook(lambda module, inputs, output: scores.append(output))
    generator_loss, discriminator_loss = hinge_adversary(discriminator, student, case.tensor("teacher_logits"))
    outputs = {"g_loss": generator_loss, "d_loss": discriminator_loss}
    for name, score in zip(("student_call1", "student_call2", "teacher_call3"), scores, strict=True):
        outputs[f"d_out_{name}"] = score
    state = discriminator.state_dict()
    outputs |= {f"{key}_after3": state[our_name(key)] for key in case.hyper["param_keys"] if our_name(key) in state}
    parameters = dict(discriminator.named_parameters())
    leaves = {key: parameters[our_name(key)] for key in case.hyper["param_keys"] if our_name(key) in parameters}
    check(case, outputs, leaves | {"student_logits": student})


def small_adversary() -> tuple[Discriminator, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    student, teacher = maps((2, 3, 64, 64), 0)
    return Discriminator(3, width=4), student.requires_grad_(), teacher


def test_generator_loss_reaches_only_the_student() -> None:
    discriminator, student, teacher = small_adversary()
    hinge_adversary(discriminator, student, teacher)[0].backward()
    assert student.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in discriminator.parameters())


def test_discriminator_loss_reaches_only_the_discriminator() -> None:
    discriminator, student, teacher = small_adversary()
    teacher.requires_grad_()
    hinge_adversary(discriminator, student, teacher)[1].backward()
    assert student.grad is None and teacher.grad is None
    assert all(parameter.grad is not None for parameter in discriminator.parameters())


def test_one_backward_of_the_sum_gives_the_gradients_of_two() -> None:
    gradients = []
    for joint in (True, False):
        discriminator, student, teacher = small_adversary()
        losses = hinge_adversary(discriminator, student, teacher)
        for loss in [sum(losses)] if joint else losses:
            loss.backward()
        gradients.append([student.grad, *(parameter.grad for parameter in discriminator.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_spectral_norm_comes_to_divide_by_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    convolution = SpectralConv2d(3, 8, 4, stride=2, padding=1)
    x = torch.randn(1, 3, 8, 8)
    for _ in range(200):
        convolution(x)
    largest = torch.linalg.matrix_norm(convolution.weight.flatten(1), ord=2)
    expected = F.conv2d(x, convolution.weight / largest, convolution.bias, stride=2, padding=1)
    torch.testing.assert_close(convolution(x), expected, rtol=1e-4, atol=1e-5)


def test_evaluation_does_not_advance_the_power_iteration() -> None:
    convolution = SpectralConv2d(3, 8, 4).eval()
    before = convolution.u.clone()
    convolution(torch.randn(1, 3, 8, 8))
    assert torch.equal(convolution.u, before)


@quick
@given(*[st.tuples(st.integers(1, 200), st.integers(1, 200))] * 2)
def test_adversary_grid_is_the_coarser_and_large_enough(a, b) -> None:
    h, w = adversary_size(torch.empty(1, 1, *a), torch.empty(1, 1, *b))
    coarse = min(a[0], b[0]), min(a[1], b[1])
    assert min(h, w) == max(SMALLEST, min(coarse))
    if min(coarse) >= SMALLEST:
        assert (h, w) == coarse
    assert h * coarse[1] / (w * coarse[0]) == pytest.approx(1, abs=1 / SMALLEST)


# Method ------------------------------------------------------------------------------------------------------------


def test_discriminator_has_an_optimiser_of_its_own_and_is_absent_without_weight() -> None:
    shapes = {"logits": TapShape(channels=5, stride=8), "pre_classifier": TapShape(channels=8, stride=8)}
    part = SKD(width=2).build(shapes, shapes)["discriminator"]
    assert part.optimizer == {"type": "Adam", "lr": 4e-4, "betas": (0.9, 0.99)}
    assert SKD(generator_weight=0.0).build(shapes, shapes) == {}


def test_weights_apply_to_their_terms() -> None:
    shapes = {"logits": TapShape(channels=5, stride=8), "pre_classifier": TapShape(channels=8, stride=8)}
    z, z_t = maps((1, 5, 8, 8), 0)
    f, f_t = maps((1, 8, 8, 8), 1)

    def terms(**weights: float) -> dict[str, float]:
        torch.manual_seed(0)
        method = SKD(width=2, **weights)
        method.attach(shapes, shapes)
        losses = method.losses({"logits": z, "pre_classifier": f}, {"logits": z_t, "pre_classifier": f_t}, z, 0)
        return {name: loss.item() for name, loss in losses.items()}

    ones = terms(pixel_weight=1.0, pairwise_weight=1.0, generator_weight=1.0, discriminator_weight=1.0)
    assert terms() == pytest.approx(
        {name: weight * ones[name] for name, weight in zip(ones, (1.0, 10.0, 0.001, 0.1), strict=True)}
    )
