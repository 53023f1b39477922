"""HeteroAKD: the mathematics of its equations, every switch, and an independent loop-written reference."""

from __future__ import annotations

import math
from itertools import product
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmark.core.errors import KdsegError
from benchmark.method import IGNORE
from benchmark.method.registry import method_class
from benchmark.spec.networks import TapShape
from methods.heteroakd import (
    HeteroAKD,
    entropy_drop,
    hybrid_logits,
    knowledge_weights,
    masked_sum,
    one_vs_rest_entropy,
    projection,
    reduced,
    teacher_share,
    weighted_divergence,
)

CLASSES = 5
SIZE = (65, 97)  # odd, and no multiple of any stride
CNN = {"c4": (12, 8), "pre_classifier": (10, 8), "logits": (CLASSES, 8)}
MIT = {"c4": (16, 32), "pre_classifier": (6, 4), "logits": (CLASSES, 4)}
PAIRS = {"CNN to MiT": (MIT, CNN), "MiT to CNN": (CNN, MIT)}  # (student, teacher)

FORMS = get_args(HeteroAKD.hyper_types()["form"])
REDUCTIONS = get_args(HeteroAKD.hyper_types()["reduction"])
DETACH = get_args(HeteroAKD.hyper_types()["detach"])

properties = settings(max_examples=60)


def shapes(network: dict[str, tuple[int, int]]) -> dict[str, TapShape]:
    return {name: TapShape(channels=channels, stride=stride) for name, (channels, stride) in network.items()}


def features(network: dict[str, tuple[int, int]], seed: int, images: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {name: [math.ceil(side / stride) for side in SIZE] for name, (_, stride) in network.items()}
    return {name: torch.randn(images, c, *sizes[name], generator=generator) for name, (c, _) in network.items()}


def labelled(images: int = 2, size: tuple[int, int] = SIZE, ignored: float = 0.2, seed: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (images, *size), generator=generator)
    return labels.masked_fill(torch.rand(labels.shape, generator=generator) < ignored, IGNORE)


def attached(student: dict, teacher: dict, **hyper: Any) -> HeteroAKD:
    """The method with its projectors built, from a fixed seed, in training mode."""
    torch.manual_seed(0)
    method = HeteroAKD(**hyper)
    method.attach(shapes(student), shapes(teacher))
    return method.train()


def leaves(taps: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tap.clone().requires_grad_() for name, tap in taps.items()}


def random_projections(images: int = 2, size: tuple[int, int] = (4, 5), scale: float = 2.0) -> tuple[Tensor, ...]:
    """Z_s, Z_t in float64 and labels, some of them ignored."""
    generator = torch.Generator().manual_seed(3)
    z_s, z_t = scale * torch.randn(2, images, CLASSES, *size, generator=generator, dtype=torch.float64)
    return z_s, z_t, labelled(images, size)


def hakd(z_s: Tensor, z_t: Tensor, labels: Tensor, **hyper: Any) -> Tensor:
    return HeteroAKD(**hyper).hakd(z_s, z_t, labels, labels != IGNORE)


@st.composite
def projections(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Z_s, Z_t (1, K, 1, P) in float64 and labels (1, 1, P), all valid."""
    classes, pixels = draw(st.integers(2, 4)), draw(st.integers(1, 5))
    logits = st.lists(st.floats(-30, 30), min_size=classes * pixels, max_size=classes * pixels)
    z_s, z_t = (torch.tensor(draw(logits), dtype=torch.float64).view(1, classes, 1, pixels) for _ in range(2))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=pixels, max_size=pixels))
    return z_s, z_t, torch.tensor(labels).view(1, 1, pixels)


# The equations ---------------------------------------------------------------------------------------------------


@properties
@given(projections())
def test_entropy_is_binary_cross_entropy_to_the_one_hot_labels(maps):
    z_s, _, labels = maps
    one_hot = F.one_hot(labels, z_s.shape[1]).permute(0, 3, 1, 2).double()
    expected = F.binary_cross_entropy_with_logits(z_s, one_hot, reduction="none")
    torch.testing.assert_close(one_vs_rest_entropy(z_s, labels), expected, atol=1e-8, rtol=1e-8)


@properties
@given(projections())
def test_teacher_share_is_the_students_part_of_the_entropy(maps):
    z_s, z_t, labels = maps
    h_s, h_t = one_vs_rest_entropy(z_s, labels), one_vs_rest_entropy(z_t, labels)
    share = teacher_share(h_s, h_t)
    assert ((share > 0) & (share < 1)).all()
    torch.testing.assert_close(share, 1 - h_t / (h_t + h_s))
    torch.testing.assert_close(share + teacher_share(h_t, h_s), torch.ones_like(share))


@properties
@given(projections())
def test_the_hybrid_is_no_worse_than_the_harmonic_mean(maps):
    z_s, z_t, labels = maps
    h_s, h_t = one_vs_rest_entropy(z_s, labels), one_vs_rest_entropy(z_t, labels)
    h_hybrid = one_vs_rest_entropy(hybrid_logits(z_s, z_t, teacher_share(h_s, h_t)), labels)
    assert (h_hybrid <= 2 * h_s * h_t / (h_s + h_t) + 1e-8).all()


@properties
@given(projections())
def test_the_clamp_acts_only_where_the_student_is_better(maps):
    z_s, z_t, labels = maps
    h_s, h_t = one_vs_rest_entropy(z_s, labels), one_vs_rest_entropy(z_t, labels)
    h_hybrid = one_vs_rest_entropy(hybrid_logits(z_s, z_t, teacher_share(h_s, h_t)), labels)
    drop, bound = entropy_drop(h_s, h_hybrid), h_s * (h_s - h_t) / (h_s + h_t)
    behind = h_s >= h_t
    assert (drop >= 0).all()
    assert (drop[behind] >= bound[behind] - 1e-8).all()
    torch.testing.assert_close(drop[behind], (h_s - h_hybrid)[behind], atol=1e-8, rtol=0)


def test_hybrid_is_the_formula():
    z_s, z_t, _ = random_projections()
    share = torch.rand_like(z_s)
    torch.testing.assert_close(hybrid_logits(z_s, z_t, share), share * z_t + (1 - share) * z_s)


def test_share_is_a_half_where_both_entropies_underflow():
    z = torch.full((1, 2, 1, 1), 200.0)
    z[:, 1] = -200.0  # class 0 is right beyond float32, and so is class 1
    h = one_vs_rest_entropy(z, torch.zeros(1, 1, 1, dtype=torch.long))
    assert (h == 0).all()
    assert (teacher_share(h, h) == 0.5).all()


def test_entropy_keeps_its_relative_precision_where_it_is_tiny():
    z = torch.tensor([40.0, -40.0]).view(1, 2, 1, 1)
    h = one_vs_rest_entropy(z, torch.zeros(1, 1, 1, dtype=torch.long))
    torch.testing.assert_close(h.flatten(), torch.full((2,), math.exp(-40)), rtol=1e-6, atol=0)


# Weights (eq. 9) -------------------------------------------------------------------------------------------------


def test_class_weights_sum_to_one_over_classes():
    z_s, _, labels = random_projections()
    weights = knowledge_weights(one_vs_rest_entropy(z_s, labels), labels != IGNORE)
    torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))


def test_spatial_weights_average_one_over_k_over_the_valid_pixels_of_each_image_and_class():
    z_s, _, labels = random_projections()
    labels[0, :2] = IGNORE  # two images with different numbers of valid pixels
    valid = labels != IGNORE
    weights = knowledge_weights(one_vs_rest_entropy(z_s, labels), valid, "spatial")
    for image in range(2):
        mean = weights[image][:, valid[image]].mean(1)
        torch.testing.assert_close(mean, torch.full_like(mean, 1 / CLASSES))
    assert (weights.masked_select(~valid[:, None]) == 0).all()


def test_spatial_weights_of_an_image_without_valid_pixels_are_zero():
    z_s, _, labels = random_projections()
    labels[0] = IGNORE
    weights = knowledge_weights(z_s, labels != IGNORE, "spatial")
    assert (weights[0] == 0).all()
    assert weights[1].sum() > 0


def test_without_kem_all_weights_are_one_over_k():
    z_s, z_t, labels = random_projections()
    target = hybrid_logits(z_s, z_t, teacher_share(*(one_vs_rest_entropy(z, labels) for z in (z_s, z_t))))
    cross_entropy = -(F.softmax(target, 1) * F.log_softmax(z_s, 1)).sum(1)[labels != IGNORE].mean()
    torch.testing.assert_close(hakd(z_s, z_t, labels, kem=False), cross_entropy / CLASSES)


def test_without_kmm_the_target_is_the_teachers_projection():
    z_s, z_t, labels = random_projections()
    h_s, h_t = one_vs_rest_entropy(z_s, labels), one_vs_rest_entropy(z_t, labels)
    weights = F.softmax(h_s + (h_s - h_t).clamp(min=0), 1)
    cross_entropy = -(weights * F.softmax(z_t, 1) * F.log_softmax(z_s, 1)).sum(1)[labels != IGNORE].mean()
    torch.testing.assert_close(hakd(z_s, z_t, labels, kmm=False), cross_entropy)


# The loss (eq. 10) -----------------------------------------------------------------------------------------------


def reference(z_s: Tensor, z_t: Tensor, labels: Tensor) -> float:
    """L_hakd with the defaults, pixel by pixel in plain Python: no code shared with the method."""

    def entropy(z: float, positive: bool) -> float:
        probability = 1 / (1 + math.exp(-z))
        return -math.log(probability if positive else 1 - probability)

    def softmax(values: list[float]) -> list[float]:
        powers = [math.exp(value) for value in values]
        return [power / sum(powers) for power in powers]

    images, classes, height, width = z_s.shape
    pixels = []
    for n, i, j in product(range(images), range(height), range(width)):
        label = int(labels[n, i, j])
        if label == IGNORE:
            continue
        hybrid, argument = [], []
        for c in range(classes):
            student, teacher = float(z_s[n, c, i, j]), float(z_t[n, c, i, j])
            h_s, h_t = entropy(student, c == label), entropy(teacher, c == label)
            share = 1 - h_t / (h_t + h_s)
            hybrid.append(share * teacher + (1 - share) * student)
            argument.append(h_s + max(0.0, h_s - entropy(hybrid[c], c == label)))
        weights, p, q = softmax(argument), softmax(hybrid), softmax([float(z) for z in z_s[n, :, i, j]])
        pixels.append(-sum(weights[c] * p[c] * math.log(q[c]) for c in range(classes)))
    return sum(pixels) / len(pixels)


def test_agrees_with_a_reference_written_as_loops():
    z_s, z_t, labels = random_projections()
    assert hakd(z_s, z_t, labels).item() == pytest.approx(reference(z_s, z_t, labels), abs=1e-9)


def test_the_whole_method_agrees_with_the_reference_on_one_grid():
    student, teacher = features(CNN, 1), features(CNN, 2)
    method = attached(CNN, CNN, lambda2=10.0)
    labels = labelled(size=student["c4"].shape[2:])
    terms = method.losses(student, teacher, labels, 0)
    z_s, z_t = (
        module(maps["c4"]).detach().double()
        for module, maps in ((method.student_projector, student), (method.teacher_projector, teacher))
    )
    assert terms["hakd"].item() == pytest.approx(10 * reference(z_s, z_t, labels), rel=1e-5)

    valid = labels != IGNORE
    p, q = F.softmax(teacher["logits"], 1), F.softmax(student["logits"], 1)
    assert terms["kd"].item() == pytest.approx(0.1 * (p * (p / q).log()).sum(1)[valid].mean().item(), rel=1e-4)
    entropies = [one_vs_rest_entropy(z, labels).movedim(1, -1)[valid].mean().item() for z in (z_s, z_t)]
    assert terms["supervision"].item() == pytest.approx(sum(entropies), rel=1e-5)


def test_ce_and_kl_have_equal_gradients_where_target_and_weights_are_detached():
    z_s, z_t, labels = random_projections()
    values, gradients = [], []
    for form in ("ce", "kl"):
        z = z_s.clone().requires_grad_()
        loss = hakd(z, z_t, labels, form=form)
        values.append(loss.item())
        gradients.append(torch.autograd.grad(loss, z)[0])
    torch.testing.assert_close(*gradients)
    assert values[0] != pytest.approx(values[1])


def test_the_weighted_softmax_kl_can_be_negative_and_the_weighted_ce_cannot():
    target = torch.tensor([0.0, 0.0]).view(1, 2, 1, 1)
    z_s = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    weights = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1)  # most weight where the student says more than the target
    assert weighted_divergence(z_s, target, weights, "kl", 1.0).sum() < 0
    assert weighted_divergence(z_s, target, weights, "ce", 1.0).sum() > 0


@properties
@given(projections())
def test_the_bernoulli_kl_is_never_negative_and_zero_at_the_target(maps):
    z_s, target, _ = maps
    assert (weighted_divergence(z_s, target, 1.0, "bernoulli_kl", 1.0) >= -1e-12).all()
    assert (weighted_divergence(target, target, 1.0, "bernoulli_kl", 1.0) == 0).all()


def test_the_bernoulli_kl_is_that_of_torch():
    z_s, target, _ = random_projections()
    expected = torch.distributions.kl_divergence(
        torch.distributions.Bernoulli(logits=target / 2), torch.distributions.Bernoulli(logits=z_s / 2)
    )
    torch.testing.assert_close(weighted_divergence(z_s, target, 1.0, "bernoulli_kl", 2.0), expected)


@properties
@given(projections())
def test_the_minimiser_of_the_weighted_ce_is_proportional_to_weight_times_target(maps):
    target, argument, _ = (m.clamp(-4, 4) if m.is_floating_point() else m for m in maps)
    weights = F.softmax(argument, 1)

    def value_and_slope(z: Tensor) -> tuple[Tensor, Tensor]:
        z = z.clone().requires_grad_()
        loss = weighted_divergence(z, target, weights, "ce", 1.0).sum()
        return loss.detach(), torch.autograd.grad(loss, z)[0]

    best, slope = value_and_slope(weights.log() + F.log_softmax(target, 1))
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-9, rtol=0)
    at_target, slope = value_and_slope(target)
    assert best <= at_target + 1e-9
    if (weights.amax(1) - weights.amin(1)).max() > 0.1:
        assert slope.abs().max() > 1e-6, "Z_s = target is a minimum only where all weights are equal"


@pytest.mark.parametrize("form", FORMS)
def test_a_step_down_the_gradient_brings_the_loss_down(form):
    z_s, z_t, labels = random_projections()
    target, weights = z_t, F.softmax(z_s, 1)
    z = z_s.clone().requires_grad_()
    loss = weighted_divergence(z, target, weights, form, 2.0).sum()
    (slope,) = torch.autograd.grad(loss, z)
    assert weighted_divergence(z_s - 0.1 * slope, target, weights, form, 2.0).sum() < loss


def test_reductions_differ_by_the_number_of_pixels_and_classes_exactly():
    z_s, z_t, labels = random_projections()
    pixels = int((labels != IGNORE).sum())
    value = {reduction: hakd(z_s, z_t, labels, reduction=reduction) for reduction in REDUCTIONS}
    torch.testing.assert_close(value["sum"], value["pixel"] * pixels)
    torch.testing.assert_close(value["pixel"], value["element"] * CLASSES)
    assert value["sum"] / value["element"] > 100  # so a lambda2 means nothing without its reduction


def test_the_temperature_acts_on_both_sides_and_its_square_is_multiplied_back():
    z_s, z_t, labels = random_projections()
    target, tau = z_t, 4.0
    expected = -(F.softmax(target / tau, 1) * F.log_softmax(z_s / tau, 1)).sum(1)[labels != IGNORE].mean()
    actual = hakd(z_s, z_t, labels, tau=tau, kmm=False, kem=False)
    torch.testing.assert_close(actual, tau**2 * expected / CLASSES)


def test_the_target_uses_the_labels():
    z_s, z_t, labels = random_projections()
    moved = torch.where(labels == IGNORE, labels, (labels + 1) % CLASSES)
    targets = []
    for truth in (labels, moved):
        share = teacher_share(one_vs_rest_entropy(z_s, truth), one_vs_rest_entropy(z_t, truth))
        targets.append(hybrid_logits(z_s, z_t, share))
    assert not torch.allclose(*targets)
    values = [hakd(z_s, z_t, truth, kem=False) for truth in (labels, moved)]
    assert not torch.allclose(*values)


def test_a_weight_argument_of_dh_alone_leaves_the_students_entropy_out():
    z_s, z_t, labels = random_projections()
    h_s, h_t = one_vs_rest_entropy(z_s, labels), one_vs_rest_entropy(z_t, labels)
    hybrid = hybrid_logits(z_s, z_t, teacher_share(h_s, h_t))
    weights = F.softmax(entropy_drop(h_s, one_vs_rest_entropy(hybrid, labels)), 1)
    losses = weighted_divergence(z_s, hybrid, weights, "ce", 1.0).sum(1)
    expected = reduced(masked_sum(losses, labels != IGNORE), labels != IGNORE, z_s.shape[1])
    torch.testing.assert_close(hakd(z_s, z_t, labels, weight_argument="dh"), expected)


# Gradients -------------------------------------------------------------------------------------------------------


def test_what_detach_leaves_attached():
    z_s, z_t, labels = random_projections()
    gradients = {}
    for detach in DETACH:
        s, t = z_s.clone().requires_grad_(), z_t.clone().requires_grad_()
        gradients[detach] = torch.autograd.grad(hakd(s, t, labels, detach=detach), (s, t), allow_unused=True)
    assert gradients["all"][1] is None, "the teacher's projector would have nothing to learn from"
    assert all(gradients[detach][1].abs().sum() > 0 for detach in ("weights_only", "none"))
    for network in (0, 1):
        assert not torch.allclose(gradients["weights_only"][network], gradients["none"][network])

    # weights_only: the target follows both projections, with S_t and W as constants
    s, t = z_s.clone().requires_grad_(), z_t.clone().requires_grad_()
    h_s, h_t = one_vs_rest_entropy(z_s, labels), one_vs_rest_entropy(z_t, labels)
    share = teacher_share(h_s, h_t)
    weights = F.softmax(h_s + entropy_drop(h_s, one_vs_rest_entropy(hybrid_logits(z_s, z_t, share), labels)), 1)
    losses = weighted_divergence(s, hybrid_logits(s, t, share), weights, "ce", 1.0).sum(1)
    loss = reduced(masked_sum(losses, labels != IGNORE), labels != IGNORE, s.shape[1])
    for actual, expected in zip(gradients["weights_only"], torch.autograd.grad(loss, (s, t)), strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("kmm", [True, False])
def test_with_everything_attached_the_gradient_is_the_numerical_one(kmm):
    z_s, z_t, _ = random_projections(images=1, size=(2, 2))
    labels = torch.tensor([[[0, 1], [IGNORE, 4]]])
    inputs = (z_s.requires_grad_(), z_t.requires_grad_())
    for form, axis in product(FORMS, ("class", "spatial")):
        method = HeteroAKD(detach="none", form=form, weight_axis=axis, kmm=kmm, tau=1.5)
        assert torch.autograd.gradcheck(lambda s, t, m=method: m.hakd(s, t, labels, labels != IGNORE), inputs)


def test_attached_and_unsupervised_projections_can_collapse():
    """Both networks projected to one constant class: no knowledge at all, and the loss is at its minimum."""
    constant = torch.zeros(1, CLASSES, 3, 3)
    constant[:, 0] = 50.0
    assert hakd(constant, constant, labelled(1, (3, 3)), detach="none") < 1e-6
    _, student, teacher = run(PAIRS["CNN to MiT"], detach="none", supervision_weight=0.0, lambda1=0.0)
    assert student > 0
    assert teacher > 0


def run(pair: tuple[dict, dict], step: int = 0, **hyper: Any) -> tuple[dict[str, Tensor], float, float]:
    """Terms of one step, and the summed gradients of the student's and the teacher's projector."""
    method = attached(*pair, **hyper)
    terms = method.losses(leaves(features(pair[0], 1)), features(pair[1], 2), labelled(), step)
    sum(terms.values()).backward()
    sums = [
        sum(p.grad.abs().sum().item() for p in method.parts[name].module.parameters() if p.grad is not None)
        for name in ("student_projector", "teacher_projector")
    ]
    return terms, *sums


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_without_supervision_the_teachers_projector_is_frozen(pair):
    method = attached(*pair, supervision_weight=0.0)
    assert not any(p.requires_grad for p in method.teacher_projector.parameters())
    assert all(p.requires_grad for p in method.student_projector.parameters())
    _, student, teacher = run(pair, supervision_weight=0.0)
    assert student > 0
    assert teacher == 0


def test_every_trainable_parameter_gets_a_gradient_at_every_step():
    """DDP waits for all of them."""
    student, teacher, labels = features(CNN, 1, 1), features(MIT, 2, 1), labelled(1)
    for detach, weight, lambda2, warmup, kmm, cut in product(
        DETACH, (0.0, 1.0), (0.0, 1.0), (0, 5), (True, False), (True, False)
    ):
        method = attached(
            CNN,
            MIT,
            detach=detach,
            supervision_weight=weight,
            lambda2=lambda2,
            warmup=warmup,
            kmm=kmm,
            supervision_detach=cut,
            projector="conv_bn_relu_conv",
        )
        sum(method.losses(leaves(student), teacher, labels, 0).values()).backward()
        idle = [name for name, p in method.named_parameters() if p.requires_grad and p.grad is None]
        assert not idle, (detach, weight, lambda2, warmup, kmm, cut)


def test_the_supervision_may_stop_at_the_students_projector():
    for cut in (False, True):
        student = leaves(features(CNN, 1))
        method = attached(CNN, MIT, supervision_detach=cut)
        method.losses(student, features(MIT, 2), labelled(), 0)["supervision"].backward()
        assert (student["c4"].grad is None) == cut
        assert all(p.grad is not None for p in method.student_projector.parameters())


# Projectors ------------------------------------------------------------------------------------------------------


def test_a_final_relu_keeps_the_entropy_of_negative_classes_above_ln_2():
    maps, labels = features(CNN, 1)["c4"], labelled(size=(9, 13), ignored=0.0)
    negative = F.one_hot(labels, CLASSES).movedim(-1, 1) == 0
    torch.manual_seed(0)
    z = projection("conv_bn_relu", 12, CLASSES)(maps)
    assert (torch.sigmoid(z) >= 0.5).all()
    assert (one_vs_rest_entropy(z, labels)[negative] >= math.log(2) - 1e-6).all()
    for kind in ("conv_bn", "conv", "conv_bn_relu_conv"):
        z = projection(kind, 12, CLASSES)(maps)
        assert (one_vs_rest_entropy(z, labels)[negative] < math.log(2) - 0.1).any()


@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        ("conv_bn_relu", [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]),
        ("conv_bn", [nn.Conv2d, nn.BatchNorm2d]),
        ("conv_bn_relu_conv", [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Conv2d]),
        ("conv", [nn.Conv2d]),
    ],
)
def test_projector_layers(kind, layers):
    module = projection(kind, 12, CLASSES)
    assert [type(layer) for layer in module] == layers
    assert module(torch.zeros(2, 12, 3, 4)).shape == (2, CLASSES, 3, 4)


def test_one_projector_per_network_under_the_students_optimiser():
    method = attached(CNN, MIT)
    assert set(method.parts) == {"student_projector", "teacher_projector"}
    assert method.student_projector[0].in_channels == 12
    assert method.teacher_projector[0].in_channels == 16
    assert all(part.optimizer is None and part.clip_norm is None for part in method.parts.values())


def test_no_projectors_where_no_term_reads_them():
    method = attached(CNN, MIT, lambda2=0.0, supervision_weight=0.0)
    assert method.parts == {}
    assert set(method.losses(features(CNN, 1), features(MIT, 2), labelled(), 0)) == {"kd"}


# Switches --------------------------------------------------------------------------------------------------------


def every_switch() -> list[tuple[str, Any]]:
    """Each value of each choice, and values off the default for the numbers."""
    found: list[tuple[str, Any]] = []
    for name, kind in HeteroAKD.hyper_types().items():
        values = get_args(kind) if get_origin(kind) is Literal else (True, False) if kind is bool else ()
        found += [(name, value) for value in values]
    return found + [("tau", 3.0), ("kd_tau", 3.0), ("lambda1", 0.0), ("lambda2", 10.0), ("supervision_weight", 0.0)]


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize(("name", "value"), every_switch())
def test_every_switch_is_finite_and_teaches_the_student(pair, name, value):
    method = attached(*pair, **{name: value})
    student = leaves(features(pair[0], 1))
    terms = method.losses(student, features(pair[1], 2), labelled(), 0)
    assert all(term.shape == () and term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    terms["hakd"].backward()
    gradient = student[method.taps[1]].grad
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    if "kd" in terms:
        terms["kd"].backward()
        assert student["logits"].grad.abs().sum() > 0


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("axis", ["class", "spatial"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("detach", DETACH)
def test_choices_combine(pair, axis, form, detach):
    terms, student, _ = run(pair, weight_axis=axis, form=form, detach=detach, grid="label", supervision="ce")
    assert all(term.isfinite() for term in terms.values())
    assert 0 < student < math.inf


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("grid", ["larger", "student", "label"])
def test_projections_go_bilinearly_and_labels_nearest_to_the_common_grid(pair, grid):
    student, teacher, labels = features(pair[0], 1), features(pair[1], 2), labelled()
    method = attached(*pair, grid=grid)
    size = {"larger": (9, 13), "student": tuple(student["c4"].shape[2:]), "label": SIZE}[grid]
    z_s, z_t = (
        F.interpolate(module(maps["c4"]), size, mode="bilinear", align_corners=False)
        for module, maps in ((method.student_projector, student), (method.teacher_projector, teacher))
    )
    truth = F.interpolate(labels[:, None].float(), size, mode="nearest")[:, 0].long()
    expected = method.hakd(z_s, z_t, truth, truth != IGNORE)
    torch.testing.assert_close(method.losses(student, teacher, labels, 0)["hakd"], expected)


def test_the_kd_term_follows_its_switches():
    student, teacher, labels = features(CNN, 1), features(MIT, 2), labelled()
    o_s = student["logits"].double()
    o_t = F.interpolate(teacher["logits"], o_s.shape[2:], mode="bilinear", align_corners=False).double()
    truth = F.interpolate(labels[:, None].float(), o_s.shape[2:], mode="nearest")[:, 0]
    for direction, tau, ignored in product(("teacher_student", "student_teacher"), (1.0, 3.0), ("mask", "keep")):
        q, p = F.softmax(o_s / tau, 1), F.softmax(o_t / tau, 1)
        p, q = (p, q) if direction == "teacher_student" else (q, p)
        divergence = (p * (p / q).log()).sum(1)
        expected = tau**2 * (divergence.mean() if ignored == "keep" else divergence[truth != IGNORE].mean())
        method = attached(CNN, MIT, lambda1=2.0, kd_direction=direction, kd_tau=tau, kd_ignored=ignored)
        actual = method.losses(student, teacher, labels, 0)["kd"].item()
        assert actual == pytest.approx(2 * expected.item(), rel=1e-4)


def test_taps_follow_the_tap():
    assert HeteroAKD().taps == ("logits", "c4")
    assert HeteroAKD(tap="pre_classifier").taps == ("logits", "pre_classifier")


def test_warmup_silences_the_kd_terms_and_nothing_else():
    student, teacher, labels = features(CNN, 1), features(MIT, 2), labelled()
    method, plain = attached(CNN, MIT, warmup=3), attached(CNN, MIT)
    before, after = (method.losses(student, teacher, labels, step) for step in (2, 3))
    expected = plain.losses(student, teacher, labels, 0)
    assert before["kd"] == before["hakd"] == 0
    assert before["supervision"] == expected["supervision"]
    assert after == expected


def test_the_controls_are_student_and_supervision():
    assert HeteroAKD.variants["control, projector supervision only"] == {"lambda1": 0.0, "lambda2": 0.0}
    student, teacher, labels = features(CNN, 1), features(MIT, 2), labelled()
    full = attached(CNN, MIT).losses(student, teacher, labels, 0)
    assert set(full) == {"kd", "hakd", "supervision"}
    kept = {"control, projector supervision only": {"supervision"}, "control, supervision + KD": {"kd", "supervision"}}
    for name, terms in kept.items():
        control = attached(CNN, MIT, **HeteroAKD.variants[name])
        assert control.losses(student, teacher, labels, 0) == {term: full[term] for term in terms}
        assert HeteroAKD.variant(HeteroAKD.variants[name]) == f"HeteroAKD: {name}"
    assert HeteroAKD.variants["without KMM"] == {"kmm": False}
    assert HeteroAKD.variants["without KEM"] == {"kem": False}


def test_the_defaults_are_recorded():
    hyper = HeteroAKD().hyper()
    assert hyper["lambda1"] == 0.1
    assert hyper["lambda2"] == 1.0
    assert hyper["supervision_weight"] == 1.0
    assert len(hyper) == 20
    assert method_class("heteroakd") is HeteroAKD


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"lamda2": 1.0}, "did you mean lambda2"),
        ({"lambda2": -1.0}, "lambda2"),
        ({"lambda1": math.inf}, "lambda1|JSON"),
        ({"tau": 0.0}, "tau"),
        ({"warmup": -1}, "warmup"),
        ({"grid": "smaller"}, "grid"),
        ({"kmm": 1}, "kmm"),
    ],
)
def test_wrong_hyper_parameters_are_named(hyper, message):
    with pytest.raises(KdsegError, match=message):
        HeteroAKD(**hyper)


# Hard inputs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", ["class", "spatial"])
@pytest.mark.parametrize("supervision", ["bce", "ce"])
def test_ignored_pixels_have_no_influence(axis, supervision):
    """On one grid and without BN, whose batch statistics see every pixel."""
    labels = labelled(size=(9, 13))
    ignored = (labels == IGNORE)[:, None]
    for detach, reduction in product(DETACH, REDUCTIONS):
        method = attached(
            CNN, CNN, projector="conv", weight_axis=axis, supervision=supervision, detach=detach, reduction=reduction
        )
        values, gradients = [], []
        for change in (0.0, 100.0):
            student = leaves({name: tap + change * ignored for name, tap in features(CNN, 1).items()})
            teacher = {name: tap - change * ignored for name, tap in features(CNN, 2).items()}
            terms = method.losses(student, teacher, labels, 0)
            values.append(terms)
            gradients.append(torch.autograd.grad(sum(terms.values()), (student["c4"], student["logits"])))
        assert values[0] == values[1]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
            assert (one.masked_select(ignored) == 0).all()


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("supervision", ["bce", "ce"])
@pytest.mark.parametrize("detach", DETACH)
def test_a_batch_without_valid_pixels_gives_zero_and_finite_gradients(pair, supervision, detach):
    labels = torch.full((2, *SIZE), IGNORE)
    for axis, reduction in product(("class", "spatial"), REDUCTIONS):
        method = attached(*pair, weight_axis=axis, reduction=reduction, supervision=supervision, detach=detach)
        student = leaves(features(pair[0], 1))
        terms = method.losses(student, features(pair[1], 2), labels, 0)
        assert all(term == 0 for term in terms.values())
        sum(terms.values()).backward()
        for leaf in (student["c4"], student["logits"], *method.parameters()):
            assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("detach", DETACH)
@pytest.mark.parametrize("form", FORMS)
def test_extreme_logits_stay_finite(form, detach):
    scales = torch.tensor([0.0, 1.0, -1.0, 60.0, -60.0, 90.0, -90.0, 1e4, -1e4])
    grid = torch.stack(torch.meshgrid(scales, scales, scales, scales, indexing="ij")).flatten(1)  # (4, 9^4)
    labels = torch.arange(grid.shape[1])[None, None] % 2
    for axis, tau in product(("class", "spatial"), (0.5, 4.0)):
        z_s, z_t = (z[None, :, None].clone().requires_grad_() for z in grid.split(2))
        loss = hakd(z_s, z_t, labels, form=form, detach=detach, weight_axis=axis, tau=tau)
        loss.backward()
        assert loss.isfinite()
        assert z_s.grad.isfinite().all()
        assert z_t.grad is None or z_t.grad.isfinite().all()


def test_extreme_taps_stay_finite():
    student = leaves({name: 1e4 * tap for name, tap in features(CNN, 1).items()})
    teacher = {name: 1e4 * tap for name, tap in features(MIT, 2).items()}
    method = attached(CNN, MIT, projector="conv")
    terms = method.losses(student, teacher, labelled(), 0)
    sum(terms.values()).backward()
    assert all(term.isfinite() for term in terms.values())
    assert student["c4"].grad.isfinite().all()
    assert student["logits"].grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_inputs_are_computed_in_float32(dtype, autocast):
    student = {name: tap.to(dtype) for name, tap in features(CNN, 1).items()}
    teacher = {name: tap.to(dtype) for name, tap in features(MIT, 2).items()}
    method = attached(CNN, MIT)
    with torch.autocast("cpu", dtype, enabled=autocast):
        half = method.losses(student, teacher, labelled(), 0)
    wide = [{name: tap.float() for name, tap in taps.items()} for taps in (student, teacher)]
    for name, term in method.losses(*wide, labelled(), 0).items():
        assert half[name].dtype == torch.float32
        # under autocast the projector alone is rounded; the harness turns it off
        torch.testing.assert_close(half[name], term, rtol=2e-2 if autocast else 1e-6, atol=0)


def test_one_image_and_absent_classes():
    labels = labelled(1) % 2
    method = attached(MIT, CNN)
    terms = method.losses(leaves(features(MIT, 1, 1)), features(CNN, 2, 1), labels, 0)
    assert all(term.isfinite() for term in terms.values())


def test_same_seed_same_value_and_the_state_survives_saving(tmp_path):
    student, teacher, labels = features(CNN, 1), features(MIT, 2), labelled()
    method, twin, other = attached(CNN, MIT), attached(CNN, MIT), attached(CNN, MIT)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    value = method.losses(student, teacher, labels, 0)
    assert value == twin.losses(student, teacher, labels, 0)
    torch.save(method.state_dict(), tmp_path / "state.pt")
    assert value != other.losses(student, teacher, labels, 0)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert value == other.losses(student, teacher, labels, 0)
