from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from baselines import cirkd
from baselines.cirkd import CIRKD, Memory, gathered, memory_relation, minibatch_relation, relation_kl, unit_pixels
from benchmark.bench.plain_losses import plain_relation_kl
from benchmark.method import IGNORE
from benchmark.method.grids import labels_on
from benchmark.spec.networks import TapShape
from tests.golden.cases import Case, cases, check

quick = settings(max_examples=20)
FORMS = pytest.mark.parametrize("form", [relation_kl, plain_relation_kl], ids=["blocked", "plain"])


def random_map(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Mini-batch --------------------------------------------------------------------------------------------------------


@FORMS
@pytest.mark.parametrize("rows", [7, 1024])
@pytest.mark.parametrize("case", cases("cirkd.minibatch"))
def test_minibatch_equals_the_reference(case: Case, rows: int, form: Callable, monkeypatch) -> None:
    monkeypatch.setattr(cirkd, "ROWS", rows)
    monkeypatch.setattr(cirkd, "relation_kl", form)
    student = case.tensor("student_feat", requires_grad=True)
    loss = minibatch_relation(student, case.tensor("teacher_feat"), case.hyper["tau"], case.hyper["pooling"])
    check(case, {"loss": loss}, {"student_feat": student})


@quick
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.floats(0.05, 2), st.integers(0, 99))
def test_minibatch_is_zero_at_the_teacher_and_never_negative(n: int, h: int, w: int, tau: float, seed: int) -> None:
    teacher = random_map(n, 4, h, w, seed=seed)
    assert minibatch_relation(3 * teacher, teacher, tau).abs() < 1e-5  # directions alone count
    assert minibatch_relation(random_map(n, 6, h, w, seed=seed + 1), teacher, tau) > -1e-6


def test_minibatch_compares_with_every_image_and_itself() -> None:
    """An independent count of the ordered pairs, in float64 loops."""
    student, teacher = random_map(3, 2, 2, 2).double(), random_map(3, 4, 2, 2, seed=1).double()
    s, t = (F.normalize(x.flatten(2), dim=1) for x in (student, teacher))
    total = 0.0
    for i in range(3):
        for j in range(3):
            for row in range(4):
                p = torch.softmax(t[i, :, row] @ t[j] / 0.1, 0)
                q = torch.softmax(s[i, :, row] @ s[j] / 0.1, 0)
                total += float((p * (p.log() - q.log())).sum()) / (9 * 4)
    assert minibatch_relation(student.float(), teacher.float()).item() == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("valid", [None, torch.tensor([True, False, True, True, False])])
def test_gradients_are_right(valid: Tensor | None) -> None:
    """Against finite differences, with a scale on the loss."""
    rows, columns = random_map(5, 3).double().requires_grad_(), random_map(4, 3, seed=1).double().requires_grad_()
    teacher = random_map(5, 2, seed=2).double(), random_map(4, 2, seed=3).double()
    torch.autograd.gradcheck(lambda a, b: 2.5 * relation_kl((a, b), teacher, 0.7, valid), (rows, columns))


def test_blocks_never_hold_the_whole_similarity_map(monkeypatch) -> None:
    monkeypatch.setattr(cirkd, "ROWS", 8)
    seen: list[int] = []
    real = F.log_softmax
    monkeypatch.setattr(cirkd.F, "log_softmax", lambda x, dim: (seen.append(x.numel()), real(x, dim=dim))[1])
    minibatch_relation(random_map(2, 3, 6, 6), random_map(2, 4, 6, 6, seed=1))
    assert max(seen) == 8 * 36


# Memory ------------------------------------------------------------------------------------------------------------


def golden_head(case: Case) -> nn.Sequential:
    state = {
        key.removeprefix("project_head."): torch.from_numpy(value.copy())
        for key, value in case.params.items()
        if key.startswith("project_head.")
    }
    width, before = state["0.weight"].shape[:2]
    head = nn.Sequential(
        nn.Conv2d(before, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 1, bias=False),
    )
    head.load_state_dict(state | {"1.num_batches_tracked": torch.tensor(0)})
    return head


def golden_memory(case: Case) -> Memory:
    k, pixels, width = case.params["teacher_pixel_queue"].shape
    regions = case.params["teacher_segment_queue"].shape[1]
    memory = Memory(k, width, pixels, regions, case.hyper["pixel_update_freq"])
    names = {
        "pixels": "teacher_pixel_queue",
        "regions": "teacher_segment_queue",
        "pixels_pointer": "pixel_queue_ptr",
        "regions_pointer": "segment_queue_ptr",
    }
    memory.load_state_dict({ours: torch.from_numpy(case.params[theirs].copy()) for ours, theirs in names.items()})
    return memory


@FORMS
@pytest.mark.parametrize("case", cases("cirkd.memory"))
def test_memory_equals_the_reference(case: Case, form: Callable, monkeypatch) -> None:
    monkeypatch.setattr(cirkd, "relation_kl", form)
    student = case.tensor("student_feat", requires_grad=True)
    labels = labels_on(case.tensor("label").long(), student.shape[2:]).flatten(1)
    teacher, valid = unit_pixels(case.tensor("teacher_feat")), labels.flatten() != IGNORE
    orders = [torch.from_numpy(row[row >= 0]).long() for row in case.rand.get("enqueue_perm", [])]
    outputs: dict[str, Tensor] = {}
    for rule, suffix in (("own_class", "_fixed"), ("as_released", "")):
        head, memory = golden_head(case), golden_memory(case)
        memory.enqueue(teacher, labels, rule, orders)
        anchors = unit_pixels(head(student)).flatten(0, 1)
        for name, queue in (("pixel", memory.pixels), ("region", memory.regions)):
            index = torch.from_numpy(case.rand[f"{name}_index"]).long() if f"{name}_index" in case.rand else slice(3)
            chosen = queue[:, index].flatten(0, 1)
            tau, kd_tau = case.hyper["contrast_temperature"], case.hyper["contrast_kd_temperature"]
            loss = memory_relation(anchors, teacher.flatten(0, 1), chosen, valid, tau, kd_tau)
            outputs |= {f"{name}_loss{suffix}": loss, f"{name}_loss{suffix}_intended": loss}
        outputs[f"teacher_pixel_queue_after{suffix}"] = memory.pixels
    outputs |= {
        "teacher_segment_queue_after": memory.regions,
        "pixel_queue_ptr_after": memory.pixels_pointer,
        "segment_queue_ptr_after": memory.regions_pointer,
        "project_head.1.running_mean_after": head[1].running_mean,
        "project_head.1.running_var_after": head[1].running_var,
    }
    leaves = {f"project_head.{name}": parameter for name, parameter in head.named_parameters()}
    finite = {key: value for key, value in outputs.items() if f"out.{key}" in case.expected}
    if not valid.any():  # the code as released gives NaN there; `_intended` says what is right
        finite = {key: value for key, value in finite.items() if not key.endswith(("_loss", "_loss_fixed"))}
        for key, value in finite.items():
            torch.testing.assert_close(
                value, torch.from_numpy(case.expected[f"out.{key}"]).to(value.dtype), rtol=0, atol=1e-5
            )
        return
    check(case, finite, leaves | {"student_feat": student})


def memory(classes: int = 3, channels: int = 4, pixels: int = 8, regions: int = 4, update: int = 3) -> Memory:
    torch.manual_seed(0)
    return Memory(classes, channels, pixels, regions, update)


def test_pixel_queue_holds_pixels_of_its_own_class() -> None:
    """Three bands of three classes, each with a direction of its own."""
    bands = torch.arange(3).repeat_interleave(4)[None]
    vectors = F.one_hot(bands, 4).float()
    fixed, released = memory(), memory()
    for _ in range(4):
        fixed.enqueue(vectors, bands)
        released.enqueue(vectors, bands, "as_released")
    for k in range(3):
        assert (fixed.pixels[k].argmax(1) == k).all()
        assert (released.pixels[k].argmax(1) == 0).all()  # the top of the image, whatever the class
        assert torch.equal(fixed.regions[k], released.regions[k]) and (fixed.regions[k].argmax(1) == k).all()


@quick
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_pointers_stay_in_their_queues(sizes: list[int]) -> None:
    queue = memory(pixels=5, regions=2, update=4)
    for size in sizes:
        labels = torch.full((1, 10), IGNORE)
        labels[0, :size] = 1
        queue.enqueue(F.normalize(random_map(1, 10, 4), dim=2), labels)
        assert 0 <= queue.pixels_pointer[1] < 5 and 0 <= queue.regions_pointer[1] < 2
    assert queue.pixels_pointer[0] == queue.regions_pointer[2] == 0


def test_ignored_pixels_enter_nowhere() -> None:
    queue = memory()
    before = {name: value.clone() for name, value in queue.state_dict().items()}
    queue.enqueue(random_map(2, 6, 4), torch.full((2, 6), IGNORE))
    assert all(torch.equal(value, before[name]) for name, value in queue.state_dict().items())


# Method ------------------------------------------------------------------------------------------------------------


def shapes(channels: int, classes: int = 3) -> dict[str, TapShape]:
    return {"logits": TapShape(channels=classes, stride=8), "pre_classifier": TapShape(channels=channels, stride=8)}


def losses(images: int = 4, **hyper) -> dict[str, Tensor]:
    torch.manual_seed(0)
    method = CIRKD(**{"pixel_memory": 20, "region_memory": 10, **hyper})
    method.attach(shapes(4), shapes(6))
    target = torch.randint(0, 3, (images, 32, 32), generator=torch.Generator().manual_seed(1))
    student, teacher = random_map(images, 4, 4, 4), random_map(images, 6, 4, 4, seed=1)
    return method.losses({"pre_classifier": student}, {"pre_classifier": teacher}, target, 0)


def test_pairs_stay_within_groups() -> None:
    student, teacher = random_map(4, 4, 4, 4), random_map(4, 6, 4, 4, seed=1)
    halves = [minibatch_relation(student[i : i + 2], teacher[i : i + 2]) for i in (0, 2)]
    torch.testing.assert_close(losses(group=2)["minibatch"], torch.stack(halves).mean())
    torch.testing.assert_close(losses(group=0)["minibatch"], minibatch_relation(student, teacher))
    single = [minibatch_relation(student[i : i + 1], teacher[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(losses(group=1)["minibatch"], torch.stack(single).mean())


def test_weights_apply_to_their_terms() -> None:
    ones = losses(minibatch_weight=1.0, pixel_weight=1.0, region_weight=1.0)
    usual = losses()
    weights = {"minibatch": 1.0, "pixel_memory": 0.1, "region_memory": 0.1}
    for name, weight in weights.items():
        torch.testing.assert_close(usual[name], weight * ones[name])
    assert set(losses(pixel_weight=0.0)) == {"minibatch", "region_memory"}
    assert set(losses(pixel_weight=0.0, region_weight=0.0)) == {"minibatch"}
    assert set(losses(minibatch_weight=0.0)) == {"pixel_memory", "region_memory"}


def test_without_memory_terms_there_are_no_queues() -> None:
    assert CIRKD(pixel_weight=0.0, region_weight=0.0).build(shapes(4), shapes(6)) == {}


def test_gathering_in_one_process_changes_nothing() -> None:
    x = random_map(2, 3)
    assert gathered(x) is x
    torch.testing.assert_close(losses(gather=True)["minibatch"], losses()["minibatch"])


def _rank(rank: int, file: str, out: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    student = random_map(4, 4, 4, 4)[2 * rank : 2 * rank + 2].requires_grad_()
    teacher = random_map(4, 6, 4, 4, seed=1)[2 * rank : 2 * rank + 2]
    torch.manual_seed(0)
    method = CIRKD(gather=True, group=0, pixel_memory=20, region_memory=10)
    method.attach(shapes(4), shapes(6))
    target = torch.randint(0, 3, (4, 32, 32), generator=torch.Generator().manual_seed(1))[2 * rank : 2 * rank + 2]
    terms = method.losses({"pre_classifier": student}, {"pre_classifier": teacher}, target, 0)
    terms["minibatch"].backward()
    torch.save((terms["minibatch"].detach(), student.grad, method.memory.regions), f"{out}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_gathering_over_two_ranks_is_one_process_with_the_whole_batch(tmp_path) -> None:
    torch.multiprocessing.spawn(
        functools.partial(_rank, file=str(tmp_path / "meet"), out=str(tmp_path)), nprocs=2, join=True
    )
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    student = random_map(4, 4, 4, 4).requires_grad_()
    whole = minibatch_relation(student, random_map(4, 6, 4, 4, seed=1))
    whole.backward()
    for rank, (value, gradient, _) in enumerate(parts):
        torch.testing.assert_close(value, whole.detach())
        # every rank's loss reaches every rank's images, and DDP takes the mean over ranks
        torch.testing.assert_close(gradient / 2, student.grad[2 * rank : 2 * rank + 2])
    assert torch.equal(parts[0][2], parts[1][2]), "the regions of all ranks enter every rank's memory"
