"""Optimisers and schedules from mmengine, as a protocol names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from benchmark.spec.definitions import OptimRecipe


def build_optimizer(model: nn.Module, recipe: OptimRecipe, precision: Literal["fp32", "amp"]) -> OptimWrapper:
    """The wrapper that steps all parameters of `model`; `amp` needs a CUDA device.

    It does not clip: mmengine's wrapper reads the norm on the host for its log, and so waits for the device.
    """
    own = {"momentum": recipe.momentum} if recipe.optimizer == "SGD" else {"betas": recipe.betas}
    config: dict[str, Any] = {
        "type": "AmpOptimWrapper" if precision == "amp" else "OptimWrapper",
        "optimizer": dict(type=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay, **own),
    }
    paramwise: dict[str, Any] = {}
    if not recipe.decay_norm:
        paramwise["norm_decay_mult"] = 0.0
    if recipe.head_lr_factor != 1:
        # as in mmseg's configs, where the key also keeps the decay of the heads' norms; no method's module is meant
        heads = ("decode_head", "auxiliary_head")
        paramwise["custom_keys"] = dict.fromkeys(heads, {"lr_mult": recipe.head_lr_factor})
    if paramwise:
        config["paramwise_cfg"] = paramwise
    wrapper = build_optim_wrapper(model, config)
    _merge_groups(wrapper.optimizer.param_groups)
    return wrapper


def _merge_groups(groups: list[dict[str, Any]]) -> None:
    """Put parameters with equal options into one group, in place.

    mmengine makes a group for each, and each group costs a GPU a dozen kernels of its own. The numbers are the same.
    """
    merged: dict[Any, dict[str, Any]] = {}
    for group in groups:
        options = {key: value for key, value in group.items() if key != "params"}
        merged.setdefault(tuple(sorted(options.items())), {"params": [], **options})["params"] += group["params"]
    groups[:] = merged.values()


def build_own_optimizer(module: nn.Module, optimizer: Mapping[str, Any]) -> OptimWrapper:
    """The wrapper of a method's part that brings its own optimiser."""
    return build_optim_wrapper(module, {"type": "OptimWrapper", "optimizer": dict(optimizer)})


def build_schedules(optimizer: OptimWrapper, recipe: OptimRecipe, iterations: int) -> list[Any]:
    """Linear warm-up (where the recipe has one), then polynomial decay, at `min_lr` in the last iteration."""
    configs = [
        {
            "type": "PolyLR",
            "power": recipe.power,
            "eta_min": recipe.min_lr,
            "begin": recipe.warmup,
            "end": iterations,
            "by_epoch": False,
        }
    ]
    if recipe.warmup:
        configs.insert(
            0, {"type": "LinearLR", "start_factor": 1e-6, "begin": 0, "end": recipe.warmup, "by_epoch": False}
        )
    return [PARAM_SCHEDULERS.build(config, default_args={"optimizer": optimizer}) for config in configs]
