from __future__ import annotations

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from benchmark.spec.definitions import OptimRecipe
from benchmark.training.optim import build_optimizer


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))


def steps(model: nn.Module, wrapper) -> list[torch.Tensor]:
    for seed in range(3):
        x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        wrapper.update_params(model(x).square().mean())
    return list(model.state_dict().values())


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_parameters_with_equal_options_share_a_group_and_step_bit_equally(name: str) -> None:
    recipe = OptimRecipe(optimizer=name, lr=0.1, weight_decay=0.1, decay_norm=False, warmup=0)
    ours, theirs = network(), network()
    merged = build_optimizer(ours, recipe, "fp32")
    options = {"type": name, "lr": 0.1, "weight_decay": 0.1} | ({"momentum": recipe.momentum} if name == "SGD" else {})
    plain = build_optim_wrapper(theirs, {"optimizer": options, "paramwise_cfg": {"norm_decay_mult": 0.0}})
    assert len(merged.optimizer.param_groups) == 2 < len(plain.optimizer.param_groups)
    assert sum(len(group["params"]) for group in merged.optimizer.param_groups) == len(list(ours.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(steps(ours, merged), steps(theirs, plain), strict=True))
