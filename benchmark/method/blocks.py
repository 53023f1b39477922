"""Sums: of terms, and over large maps in blocks of rows, so that temporaries do not grow with the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

LIMIT = 2**20
"""Numbers in a temporary of one block, if one row does not take more: 4 MiB in float32. On a CPU 16 MiB take longer."""

ROWS = 1024
"""Similarities are made for so many rows at a time: 8192 with each other would take 256 MiB, 4096 take 64 MiB."""


def added(terms: Iterable[Tensor]) -> Tensor:
    """The sum of one or more tensors; the built-in, which this is, may also be asked for that of none."""
    total = sum(terms)
    assert isinstance(total, Tensor), "a sum of no terms"
    return total


def sum_in_blocks(function: Callable[..., Tensor], *tensors: Tensor, elements: int) -> Tensor:
    """`function(*tensors)`, a sum over rows, taken over so many rows at a time as `LIMIT` allows.

    Where all fit into one block this is a plain call. Else each block's gradient is made on the way: nothing of a block
    is kept for the backward pass, and nothing is computed twice.

    Args:
        function: rows in, a number out, to which each row adds on its own; draws no random numbers, and whatever else
            it reads carries no gradient.
        tensors: of equal length along dim 0.
        elements: numbers in the function's largest temporary, per row.
    """
    size = max(1, LIMIT // elements)
    if len(tensors[0]) <= size:
        return function(*tensors)
    return _SumInBlocks.apply(function, size, *tensors)


class _SumInBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], size: int, *tensors: Tensor) -> Tensor:
        learns = ctx.needs_input_grad[2:]
        gradients: list[Tensor | None] = [None] * len(tensors)
        total = tensors[0].new_zeros((), dtype=torch.float32)
        for start in range(0, len(tensors[0]), size):
            rows = slice(start, start + size)
            with torch.enable_grad():
                block = [x[rows].detach().requires_grad_(wanted) for x, wanted in zip(tensors, learns, strict=True)]
                part = function(*block)
            total += part.detach()
            leaves = [x for x in block if x.requires_grad]
            if not leaves:
                continue
            # There is one for each leaf only, which are the wanted ones in the same order.
            block_gradients = iter(torch.autograd.grad(part, leaves, allow_unused=True))
            for position, wanted in enumerate(learns):
                gradient = next(block_gradients) if wanted else None
                if gradient is not None:
                    whole = gradients[position]
                    if whole is None:
                        whole = gradients[position] = torch.empty_like(tensors[position])
                    whole[rows] = gradient
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(None if saved is None else saved * gradient for saved in ctx.saved_tensors)
