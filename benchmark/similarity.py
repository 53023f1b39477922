"""Linear CKA from Gram matrices, unbiased over mini-batches: pure functions in float64.

Source: Kornblith et al., ICML 2019, arXiv 1905.00414 (CKA); Song et al., JMLR 2012 (the unbiased HSIC); Nguyen et al.,
ICLR 2021, arXiv 2010.15327, eq. 2-3 (its means over mini-batches, each before the ratio is taken).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

FEWEST = 4
"""Examples that the unbiased estimator needs at least."""


def gram(features: np.ndarray) -> np.ndarray:
    """Inner products (n, n), float64, of n examples' features (n, ...), flattened and centred.

    A shift of all examples changes no HSIC; without it, large means do not cancel to rounding noise.
    """
    flat = np.asarray(features, dtype=np.float64).reshape(len(features), -1)
    flat = flat - flat.mean(0)
    return flat @ flat.T


def unbiased_hsic(first: np.ndarray, second: np.ndarray) -> float:
    """HSIC_1 of two Gram matrices (n, n) of the same n examples, the unbiased estimator; it may be negative.

    With K̃, L̃ the matrices without their diagonals:
    1/(n(n−3)) · [tr(K̃L̃) + 1ᵀK̃1·1ᵀL̃1/((n−1)(n−2)) − 2/(n−2)·1ᵀK̃L̃1].

    Raises:
        ValueError: the matrices are not square and of one size, or of fewer than `FEWEST` examples.
    """
    n = len(first)
    if first.shape != (n, n) or second.shape != (n, n) or n < FEWEST:
        raise ValueError(f"Gram matrices of one size, {FEWEST} or more, are needed; got {first.shape}, {second.shape}")
    k, h = (matrix - np.diag(np.diag(matrix)) for matrix in (first, second))
    rows_k, rows_h = k.sum(0), h.sum(0)
    trace = float((k * h).sum())
    means = rows_k.sum() * rows_h.sum() / ((n - 1) * (n - 2))
    return float(trace + means - 2 / (n - 2) * (rows_k @ rows_h)) / (n * (n - 3))


def cka(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float:
    """Linear CKA of two sets of features, given as one Gram matrix per mini-batch of the same examples.

    1 for features that are equal up to rotation, reflection and one scale; near 0, of either sign, for independent
    ones. NaN where features are constant over the examples, so that there is nothing to compare.

    Raises:
        ValueError: no mini-batch, another number of them, or a matrix that `unbiased_hsic` refuses.
    """
    if not first or len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} mini-batches: one Gram matrix of each is needed for each")
    # Scaled by size, which CKA does not see: otherwise products of large features overflow.
    first, second = _scaled(first), _scaled(second)
    both = math.fsum(map(unbiased_hsic, first, second))
    own = math.fsum(map(unbiased_hsic, first, first)), math.fsum(map(unbiased_hsic, second, second))
    return both / math.sqrt(own[0] * own[1]) if min(own) > 0 else math.nan


def _scaled(grams: Sequence[np.ndarray]) -> list[np.ndarray]:
    largest = max(float(np.abs(matrix).max()) for matrix in grams)
    return [matrix / largest if largest > 0 else matrix for matrix in grams]
