from __future__ import annotations

import pytest
import torch
from torch import nn

from baselines.mgd import MGD, Generator, generation_loss, random_mask
from benchmark.spec.networks import TapShape
from tests.golden.cases import Case, cases, check


def random_map(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def shapes(channels: int, stride: int = 8) -> dict[str, TapShape]:
    return {"c4": TapShape(channels=channels, stride=stride)}


@pytest.mark.parametrize("case", cases("mgd"))
def test_generation_equals_the_reference(case: Case) -> None:
    student, teacher = case.tensor("student_feat", requires_grad=True), case.tensor("teacher_feat")
    generator = Generator(student.shape[1], teacher.shape[1])
    names = {"generation.0": "convolutions.0", "generation.2": "convolutions.1", "align": "align"}
    ours = {key: f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}" for key in case.params}
    generator.load_state_dict({ours[key]: case.tensor(key) for key in case.params})
    loss = case.hyper["alpha_mgd"] * generation_loss(generator(student, torch.from_numpy(case.rand["mask"])), teacher)
    parameters = dict(generator.named_parameters())
    check(case, {"loss": loss}, {"student_feat": student} | {key: parameters[name] for key, name in ours.items()})


def test_reductions_differ_by_channels_and_positions() -> None:
    x, y = random_map(2, 3, 4, 5), random_map(2, 3, 4, 5, seed=1)
    torch.testing.assert_close(generation_loss(x, y), generation_loss(x, y, "mean") * 3 * 4 * 5)


def test_mask_hides_its_share_of_positions_in_all_channels() -> None:
    torch.manual_seed(0)
    keep = random_mask(torch.empty(4, 7, 100, 100), 0.75)
    assert keep.shape == (4, 1, 100, 100) and set(keep.unique().tolist()) == {0, 1}
    assert keep.mean().item() == pytest.approx(0.25, abs=0.01)
    assert random_mask(torch.empty(1, 1, 9, 9), 0.0).all()


def test_masked_positions_do_not_reach_the_generator() -> None:
    generator, keep = Generator(3, 4), torch.zeros(1, 1, 5, 5)
    keep[..., 2, 2] = 1
    x = random_map(1, 3, 5, 5).requires_grad_()
    generator(x, keep).sum().backward()
    reached = x.grad.abs().sum(1)[0] > 0
    assert reached[2, 2] and reached.sum() == 1


def test_equal_widths_need_no_alignment() -> None:
    assert isinstance(Generator(4, 4).align, nn.Identity) and isinstance(Generator(3, 4).align, nn.Conv2d)


def test_finer_map_is_averaged_and_the_weight_applied_once() -> None:
    torch.manual_seed(0)
    method = MGD(weight=3.0, mask_ratio=0.0)
    method.attach(shapes(3), shapes(4, 32))
    fine, coarse = random_map(1, 3, 8, 8), random_map(1, 4, 2, 2, seed=1)
    terms = method.losses({"c4": fine}, {"c4": coarse}, torch.zeros(1, 64, 64), 0)
    generated = method.generator(torch.nn.functional.avg_pool2d(fine, 4), torch.ones(2, 2))
    torch.testing.assert_close(terms["mgd"], 3 * generation_loss(generated, coarse))
