"""Work on large maps in blocks of rows, so that temporaries do not grow with the batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LIMIT = 2**22
"""Numbers in a temporary of one block, if one row does not take more: 16 MiB in float32."""


def in_blocks(function: Callable[..., Tensor], *tensors: Tensor, elements: int) -> Tensor:
    """`function(*tensors)`, for so many rows at a time as `LIMIT` allows; what the blocks give is joined along dim 0.

    Where all fit into one block this is a plain call. Else nothing of a block is kept for the backward pass, which
    computes it once more.

    Args:
        function: rows in, rows out, each row independent of the others; draws no random numbers.
        tensors: of equal length along dim 0.
        elements: numbers in the function's largest temporary, per row.
    """
    size = max(1, LIMIT // elements)
    if len(tensors[0]) <= size:
        return function(*tensors)

    def apart(*part: Tensor) -> Tensor:
        return function(*part).clone()  # a view would keep all that it is a view of

    parts = zip(*(x.split(size) for x in tensors), strict=True)
    return torch.cat([checkpoint(apart, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])
