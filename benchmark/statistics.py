"""Statistics of few seeds: pure functions of plain numbers. A hole (NaN) is an error, never left out silently."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

MAX_FLIPPED = 20
"""Most differences an exact sign-flip test is made for: 2^20 sums."""


@dataclass(frozen=True)
class Summary:
    """What is known of a quantity from `n` values; all fields are in the values' unit.

    Attributes:
        std: sample standard deviation (ddof = 1); NaN for n = 1.
        low, high: 95 % t interval of the mean; NaN for n = 1.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float
    values: tuple[float, ...]


def summary(values: Iterable[float]) -> Summary:
    """Mean, sample standard deviation and 95 % t interval of `values`.

    Raises:
        ValueError: there are none, or one is not finite.
    """
    known = _checked(values)
    mean, std = mean_std(known)
    low, high = t_interval(known)
    return Summary(len(known), mean, std, low, high, tuple(float(value) for value in known))


def mean_std(values: Iterable[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (ddof = 1) of `values`, in their unit; the latter is NaN for one value.

    Raises:
        ValueError: there are none, or one is not finite.
    """
    known = _checked(values)
    return float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else math.nan


def t_interval(values: Iterable[float], level: float = 0.95) -> tuple[float, float]:
    """The two ends of Student's t interval of the mean of `values`: mean ± t(n−1)·s/√n; NaN for one value.

    It supposes independent, roughly normal values; over seeds it says nothing about other teachers or images.

    Raises:
        ValueError: there are no values, or one is not finite.
    """
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    known = _checked(values)
    mean, std = mean_std(known)
    if len(known) < 2:
        return math.nan, math.nan
    half = float(stdtrit(len(known) - 1, (1 + level) / 2)) * std / math.sqrt(len(known))
    return mean - half, mean + half


def sign_flip_p(differences: Iterable[float]) -> float:
    """Exact two-sided p of paired `differences` under symmetry about 0: the share of all 2^n sign patterns whose sum
    is at least as far from 0 as the observed one. It is never below 2^(1−n): 0.25 for n = 3.

    Raises:
        ValueError: there are none or more than `MAX_FLIPPED`, or one is not finite.
    """
    known = _checked(differences)
    if len(known) > MAX_FLIPPED:
        raise ValueError(f"{len(known)} differences are too many for an exact test, at most {MAX_FLIPPED}")
    sums = np.zeros(1)
    for size in known[1:]:  # the first sign stays: flipping all of them changes no distance from 0
        sums = np.concatenate([sums + size, sums - size])
    distances = np.abs(sums + known[0])
    # Sums that are equal on paper differ by rounding; the tolerance keeps them ties.
    return float(np.mean(distances >= abs(known.sum()) - 1e-9 * np.abs(known).sum()))


def _checked(values: Iterable[float]) -> np.ndarray:
    known = np.asarray(list(values), dtype=np.float64)
    if not known.size:
        raise ValueError("no values")
    if not np.isfinite(known).all():
        raise ValueError(f"values with a hole: {known.tolist()}")
    return known
