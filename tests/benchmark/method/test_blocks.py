"""Losses in blocks against their plain form, which is the same in one block."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from baselines.afdcd import dense_contrast
from baselines.kd import pixel_kd
from benchmark.method import IGNORE, blocks
from methods.heteroakd import HeteroAKD, projection_supervision

N, K, H, W = 5, 6, 9, 10
LABELS = torch.randint(0, K, (N, H, W), generator=torch.Generator().manual_seed(1))
LABELS[:, :2] = IGNORE
VALID = LABELS != IGNORE


def draw(seed: int) -> Tensor:
    return 3 * torch.randn(N, K, H, W, generator=torch.Generator().manual_seed(seed))


def hakd(**hyper: object) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda s, t: HeteroAKD(**hyper).hakd(s, t, LABELS, VALID)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kd": lambda s, t: pixel_kd(s, t, 2.0, "pixel", VALID),
    "kd, original": lambda s, t: pixel_kd(s, t, 2.0, "skd_original"),
    "afdcd": lambda s, t: dense_contrast(s, t, groups=3, pool=1, patch=(3, 3)),
    "heteroakd": hakd(),
    "heteroakd, spatial": hakd(weight_axis="spatial", reduction="element"),
    "heteroakd, attached": hakd(detach="none", form="bernoulli_kl"),
    "heteroakd, supervision": lambda s, t: projection_supervision(s, LABELS, VALID, "bce"),
}


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("name", LOSSES)
def test_blocks_change_nothing(name: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def value(limit: int) -> tuple[Tensor, Tensor]:
        monkeypatch.setattr(blocks, "LIMIT", limit)
        student = draw(0).requires_grad_()
        loss = LOSSES[name](student, draw(2))
        loss.backward()
        return loss.detach(), student.grad

    per_row = 27**2 if name == "afdcd" else K * H * W
    plain, blocked = value(2**40), value(rows * per_row)
    torch.testing.assert_close(blocked, plain)


def test_all_rows_in_one_call_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def double(x: Tensor) -> Tensor:
        calls.append(len(x))
        return 2 * x.sum()

    x = torch.arange(5.0)
    monkeypatch.setattr(blocks, "LIMIT", 50)
    assert blocks.sum_in_blocks(double, x, elements=10) == 20 and calls == [5]
    assert blocks.sum_in_blocks(double, x, elements=20) == 20 and calls == [5, 2, 2, 1]
    assert blocks.sum_in_blocks(double, x, elements=500) == 20 and calls[4:] == [1] * 5


def test_each_block_is_computed_once_and_gives_gradients_to_what_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def total(x: Tensor, unused: Tensor, weights: Tensor) -> Tensor:
        calls.append(len(x))
        return (weights * x**2).sum() + 0 * unused.detach().sum()

    x, unused = torch.arange(5.0, requires_grad=True), torch.ones(5, requires_grad=True)
    monkeypatch.setattr(blocks, "LIMIT", 2)
    (3 * blocks.sum_in_blocks(total, x, unused, torch.tensor([1, 1, 0, 1, 1]), elements=1)).backward()
    assert x.grad.tolist() == [0, 6, 0, 18, 24] and unused.grad is None
    assert calls == [2, 2, 1]
    with torch.no_grad():
        assert blocks.sum_in_blocks(total, x, unused, torch.ones(5), elements=1) == 30
