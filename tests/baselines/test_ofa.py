from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.ofa import OFA, target_enhanced_kd
from benchmark.core.errors import KdsegError
from benchmark.method import IGNORE
from benchmark.spec.networks import TapShape

quick = settings(max_examples=20)
sizes = st.tuples(st.integers(1, 3), st.integers(2, 5), st.integers(1, 5), st.integers(1, 5))
seeds = st.integers(0, 2**31)
gammas = st.floats(1, 4)


def drawn(shape: tuple[int, ...], seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of student and teacher, and labels of which about a quarter is ignored."""
    random = torch.Generator().manual_seed(seed)
    n, k, h, w = shape
    student, teacher = (3 * torch.randn(shape, generator=random) for _ in range(2))
    labels = torch.randint(0, k, (n, h, w), generator=random)
    return student, teacher, labels.masked_fill(torch.rand(n, h, w, generator=random) < 0.25, IGNORE)


def pixels(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor):
    """The probabilities of teacher and student and the label of every pixel that counts, as Python numbers."""

    def softmax(values: list[float]) -> list[float]:
        powers = [math.exp(value - max(values)) for value in values]
        return [power / sum(powers) for power in powers]

    for n in range(labels.shape[0]):
        for i in range(labels.shape[1]):
            for j in range(labels.shape[2]):
                if labels[n, i, j] != IGNORE:
                    p, q = softmax(teacher[n, :, i, j].tolist()), softmax(student[n, :, i, j].tolist())
                    yield p, q, int(labels[n, i, j])


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def released(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, gamma: float) -> float:
    """-sum_c ((p_c + y_c)^gamma - y_c) log q_c, mean over the pixels that count, in loops and double precision."""
    losses = []
    for p, q, label in pixels(student, teacher, labels):
        y = [float(c == label) for c in range(len(p))]
        losses.append(-sum(((p[c] + y[c]) ** gamma - y[c]) * math.log(q[c]) for c in range(len(p))))
    return mean(losses)


def enhanced_and_rest(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, gamma: float
) -> tuple[float, float]:
    """(1 + p)^gamma log q of the label's class and p^gamma log q of the others, and the labels' log q; negated."""
    whole, task = [], []
    for p, q, label in pixels(student, teacher, labels):
        others = sum(p[c] ** gamma * math.log(q[c]) for c in range(len(p)) if c != label)
        whole.append(-((1 + p[label]) ** gamma) * math.log(q[label]) - others)
        task.append(-math.log(q[label]))
    return mean(whole), mean(task)


# Formula -----------------------------------------------------------------------------------------------------------


@quick
@given(sizes, seeds, gammas)
def test_loss_equals_a_slow_reference(shape, seed, gamma) -> None:
    given = drawn(shape, seed)
    assert target_enhanced_kd(*given, gamma).item() == pytest.approx(released(*given, gamma), rel=1e-4, abs=1e-6)


@quick
@given(sizes, seeds, gammas)
def test_loss_and_the_task_loss_make_the_enhanced_target(shape, seed, gamma) -> None:
    # -(1 + p)^gamma log q of the label's class contains the cross-entropy of the labels, which the harness adds.
    given = drawn(shape, seed)
    whole, task = enhanced_and_rest(*given, gamma)
    assert target_enhanced_kd(*given, gamma).item() + task == pytest.approx(whole, rel=1e-4, abs=1e-6)


def test_gradient_equals_that_of_the_formula_in_double_precision() -> None:
    student, teacher, labels = drawn((2, 4, 3, 5), 0)
    student.requires_grad_()
    target_enhanced_kd(student, teacher, labels, 1.5).backward()
    double = student.detach().double().requires_grad_()
    y = torch.zeros(student.shape, dtype=torch.double).scatter(1, labels.where(labels != IGNORE, 0)[:, None], 1.0)
    valid = labels != IGNORE
    weights = (teacher.double().softmax(1) + y) ** 1.5 - y
    (-(weights * double.log_softmax(1)).sum(1)[valid].mean()).backward()
    torch.testing.assert_close(student.grad.double(), double.grad, rtol=1e-4, atol=1e-7)


@quick
@given(sizes, seeds)
def test_at_gamma_one_it_is_cross_entropy_and_the_labels_do_not_matter(shape, seed) -> None:
    student, teacher, _ = drawn(shape, seed)
    labels = drawn(shape, seed + 1)[2].where(drawn(shape, seed + 1)[2] != IGNORE, 0)
    expected = -(teacher.softmax(1) * student.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(target_enhanced_kd(student, teacher, labels, 1.0), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(target_enhanced_kd(student, teacher, 0 * labels, 1.0), expected, rtol=1e-4, atol=1e-6)


@quick
@given(sizes, seeds, gammas)
def test_loss_is_never_negative_and_order_does_not_matter(shape, seed, gamma) -> None:
    student, teacher, labels = drawn(shape, seed)
    loss = target_enhanced_kd(student, teacher, labels, gamma)
    assert loss >= 0
    turned = target_enhanced_kd(student.flip(0, 2), teacher.flip(0, 2), labels.flip(0, 1), gamma)
    torch.testing.assert_close(turned, loss)
    relabelled = labels.where(labels == IGNORE, shape[1] - 1 - labels)
    torch.testing.assert_close(target_enhanced_kd(student.flip(1), teacher.flip(1), relabelled, gamma), loss)


@quick
@given(st.floats(0.05, 0.9), st.floats(0.01, 0.05))
def test_the_surer_the_teacher_is_of_the_label_the_more_it_weighs(p, more) -> None:
    def weight(p: float) -> float:
        """The gradient by log q of the label's class, where q is constant: the class weighs less its share."""
        teacher = torch.tensor([p, 1 - p]).log().view(1, 2, 1, 1)
        student = torch.zeros(1, 2, 1, 1, requires_grad=True)
        target_enhanced_kd(student, teacher, torch.zeros(1, 1, 1, dtype=torch.long), 1.5).backward()
        return -student.grad[0, 0].item()

    assert weight(p + more) > weight(p)
    expected = (((1 + p) ** 1.5 - 1) - (1 - p) ** 1.5) / 2
    assert weight(p) == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_ignored_pixels_change_nothing_and_get_no_gradient() -> None:
    student, teacher, labels = drawn((2, 4, 5, 6), 0)
    ignored = (labels == IGNORE)[:, None].expand_as(student)
    other = torch.where(ignored, 1 - student, student).requires_grad_()
    loss = target_enhanced_kd(other, teacher, labels)
    assert torch.equal(loss, target_enhanced_kd(student, teacher, labels))
    loss.backward()
    assert ignored.any() and not other.grad[ignored].any() and other.grad.any()


def test_all_ignored_is_zero_with_zero_gradient() -> None:
    student, teacher, labels = drawn((1, 3, 4, 4), 0)
    student.requires_grad_()
    loss = target_enhanced_kd(student, teacher, torch.full_like(labels, IGNORE))
    loss.backward()
    assert loss == 0 and not student.grad.any()


def test_huge_logits_stay_finite() -> None:
    student, teacher, labels = drawn((1, 3, 4, 4), 0)
    student = (1e4 * student).requires_grad_()
    loss = target_enhanced_kd(student, 1e4 * teacher, labels)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


def test_low_precision_logits_are_computed_in_float32() -> None:
    student, teacher, labels = drawn((1, 3, 4, 4), 0)
    student, teacher = student.bfloat16(), teacher.bfloat16()
    loss = target_enhanced_kd(student, teacher, labels)
    assert torch.equal(loss, target_enhanced_kd(student.float(), teacher.float(), labels))


# Method ------------------------------------------------------------------------------------------------------------

CLASSES = 4
STRIDES = {"c1": 4, "c2": 8, "c3": 16, "c4": 32, "logits": 4}
CHANNELS = {"c1": 6, "c2": 8, "c3": 10, "c4": 12, "logits": CLASSES}
SHAPES = {tap: TapShape(channels=CHANNELS[tap], stride=STRIDES[tap]) for tap in STRIDES}
LABELS = torch.randint(0, CLASSES, (2, 64, 96), generator=torch.Generator().manual_seed(1))


def built(**hyper) -> OFA:
    torch.manual_seed(0)
    method = OFA(**{"width": 5, **hyper})
    method.attach(SHAPES, SHAPES)
    return method


def student_taps() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return {
        tap: torch.randn(2, CHANNELS[tap], 64 // stride, 96 // stride, generator=random)
        for tap, stride in STRIDES.items()
    }


def teacher_taps(stride: int = 4) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(9)
    return {"logits": 3 * torch.randn(2, CLASSES, 64 // stride, 96 // stride, generator=random)}


def test_weights_apply_to_their_terms_once() -> None:
    given = student_taps(), teacher_taps(), LABELS, 0
    ones, terms = built().losses(*given), built(weight=3.0, branch_weight=0.5).losses(*given)
    assert ones.keys() == {"ofa", "ofa_c1", "ofa_c2", "ofa_c3", "ofa_c4"}
    for name, value in terms.items():
        torch.testing.assert_close(value, (3.0 if name == "ofa" else 0.5) * ones[name])


def test_terms_without_weight_are_not_computed_and_have_no_branches() -> None:
    logits_only = built(branch_weight=0.0)
    assert logits_only.parts == {} and logits_only.taps == ("logits",)
    assert logits_only.losses(student_taps(), teacher_taps(), LABELS, 0).keys() == {"ofa"}
    branches_only = built(weight=0.0, stages="24")
    assert branches_only.taps == ("logits", "c2", "c4")
    assert set(branches_only.branches) == {"c2", "c4"}
    assert branches_only.losses(student_taps(), teacher_taps(), LABELS, 0).keys() == {"ofa_c2", "ofa_c4"}


@pytest.mark.parametrize("stages", ["", "5", "11", "21", "1 2", "1234\n"])
def test_stages_are_named_once_and_in_order(stages: str) -> None:
    with pytest.raises(KdsegError, match="stages"):
        OFA(stages=stages)


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_every_branch_is_taught_on_its_own_grid(stride: int) -> None:
    method, student, teacher = built(), student_taps(), teacher_taps(stride)
    seen: dict[str, torch.Tensor] = {"ofa": student["logits"]}
    for stage, head in method.branches.items():
        head.register_forward_hook(lambda module, inputs, output, stage=stage: seen.update({f"ofa_{stage}": output}))
    terms = method.losses(student, teacher, LABELS, 0)
    for name, value in terms.items():
        z = seen[name]
        cell = STRIDES["logits" if name == "ofa" else name.removeprefix("ofa_")]
        assert z.shape == (2, CLASSES, 64 // cell, 96 // cell)
        z_t = torch.nn.functional.interpolate(teacher["logits"], size=z.shape[2:], mode="bilinear")
        torch.testing.assert_close(value, target_enhanced_kd(z, z_t, LABELS[:, ::cell, ::cell], 1.5))


def test_each_branch_and_its_stage_are_trained_by_its_own_term_alone() -> None:
    method, student = built(), {tap: x.requires_grad_() for tap, x in student_taps().items()}
    terms = method.losses(student, teacher_taps(), LABELS, 0)
    terms["ofa_c3"].backward()
    assert [tap for tap, x in student.items() if x.grad is not None] == ["c3"]
    reached = [name for name, x in method.named_parameters() if x.grad is not None]
    assert reached and all(name.startswith("branches.c3.") for name in reached)


def test_gamma_below_one_is_refused() -> None:
    with pytest.raises(KdsegError, match="gamma"):
        OFA(gamma=0.9)
