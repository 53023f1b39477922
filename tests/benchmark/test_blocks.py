"""Losses in blocks against their plain form, which is the same in one block."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from baselines.afdcd import dense_contrast
from baselines.ifvd import variation_kd
from baselines.kd import pixel_kd
from baselines.skd import pairwise_kd
from benchmark import blocks
from benchmark.method import IGNORE
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
    "ifvd": lambda s, t: variation_kd(s, t, LABELS, K),
    "afdcd": lambda s, t: dense_contrast(s, t, groups=3, pool=1, patch=(3, 3)),
    "skd, pair-wise": pairwise_kd,
    "heteroakd": hakd(),
    "heteroakd, spatial": hakd(weight_axis="spatial", reduction="element"),
    "heteroakd, attached": hakd(detach="none", form="bernoulli_kl"),
    "heteroakd, supervision": lambda s, t: projection_supervision(s, LABELS, VALID, "bce"),
}


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("name", LOSSES)
def test_blocks_change_nothing(name: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are equal to the bit, but where a sum or mean is taken block by block."""

    def value(limit: int) -> tuple[Tensor, Tensor]:
        monkeypatch.setattr(blocks, "LIMIT", limit)
        student = draw(0).requires_grad_()
        loss = LOSSES[name](student, draw(2))
        loss.backward()
        return loss.detach(), student.grad

    per_row = {"skd, pair-wise": 25**2, "afdcd": 27**2}.get(name, K * H * W)
    plain, blocked = value(2**40), value(rows * per_row)
    torch.testing.assert_close(blocked, plain)
    if name not in ("skd, pair-wise", "afdcd"):
        assert torch.equal(blocked[0], plain[0])


def test_all_rows_in_one_call_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def double(x: Tensor) -> Tensor:
        calls.append(len(x))
        return 2 * x

    x = torch.arange(5.0)
    monkeypatch.setattr(blocks, "LIMIT", 50)
    assert torch.equal(blocks.in_blocks(double, x, elements=10), 2 * x) and calls == [5]
    assert torch.equal(blocks.in_blocks(double, x, elements=20), 2 * x) and calls == [5, 2, 2, 1]
    assert torch.equal(blocks.in_blocks(double, x, elements=500), 2 * x) and calls[4:] == [1] * 5
