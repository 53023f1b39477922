from __future__ import annotations

import json

import pytest
import torch

from baselines.cirkd import relation_kl
from benchmark.bench.losses import NETWORKS, main
from benchmark.bench.plain_losses import plain_relation_kl
from benchmark.spec.networks import network


@pytest.mark.slow
def test_bench_measures_every_form(tmp_path, capsys) -> None:
    """That it works, at a size that says nothing about speed."""
    options = ["--methods", "kd", "cirkd", "--rounds", "1", "--crop", "64", "128", "--out", str(tmp_path)]
    assert main(options) == 0
    report = json.loads((tmp_path / "losses.json").read_text())
    rows = {(row["teacher"], row["method"]): row for row in report["rows"]}
    assert len(rows) == 2 * 6
    assert all(row["seconds"] > 0 and row["peak_mb"] >= 0 for row in rows.values())
    assert rows["deeplabv3_r101", "kd"]["parameters"] == 0 and rows["deeplabv3_r101", "cirkd"]["parameters"] > 0
    assert "cirkd, mini-batch, plain form" in capsys.readouterr().err


@pytest.mark.parametrize("masked", [False, True])
def test_plain_form_and_blocked_form_agree(masked: bool) -> None:
    random = torch.Generator().manual_seed(0)
    rows, columns = (torch.randn(n, 6, generator=random).requires_grad_() for n in (30, 20))
    teacher = torch.randn(30, 4, generator=random), torch.randn(20, 4, generator=random)
    valid = torch.rand(30, generator=random) > 0.5 if masked else None
    both = [form((rows, columns), teacher, 0.5, valid) for form in (relation_kl, plain_relation_kl)]
    torch.testing.assert_close(*both)
    ours, theirs = (torch.autograd.grad(value, (rows, columns)) for value in both)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_are_those_of_the_networks(name: str) -> None:
    facts = network(name).taps
    for tap in ("c1", "c2", "c3", "c4"):
        assert (facts[tap].channels, facts[tap].stride) == NETWORKS[name][tap]
