"""A distiller in several processes: gradients are averaged, batch statistics shared where there are GPUs."""

from __future__ import annotations

import warnings
from typing import TypeVar

import torch
from mmengine.model import MMDistributedDataParallel
from torch import nn

from benchmark.runtime import distributed

M = TypeVar("M", bound=nn.Module)


def with_shared_statistics(module: M, device: torch.device) -> M:
    """The module with SyncBN in place of BN; as it is with a single process, and on CPU, which has no SyncBN."""
    if distributed.world() == 1 or device.type == "cpu":
        return module
    return nn.SyncBatchNorm.convert_sync_batchnorm(module)


def with_shared_gradients(module: nn.Module) -> nn.Module:
    """The module to call instead, so that backward leaves the same gradients in all processes.

    Parameters and buffers are first made equal to those of the first process; later, buffers stay as they are: memory
    banks are large, and methods keep them alike. A method may leave some of its parameters unused in a step.
    """
    if distributed.world() == 1:
        return module
    distributed.share_buffers(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer torch has another name for `broadcast_buffers`
        return MMDistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=True)
