"""Statistics of few seeds: pure functions of plain numbers. A hole (NaN) is an error, never left out silently."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

MAX_FLIPPED = 20
"""Most differences an exact sign-flip test is made for: 2^20 sums."""

FLIPS = 10_000
"""Sign patterns drawn where there are too many for an exact test."""

DRAWS = 10_000
"""Resamples of a bootstrap."""

LEVEL = 0.95
"""Of every interval."""

UNDER_COVERAGE = (
    "A bootstrap over few seeds covers less than it says: with 3 of them, an interval called 95 % holds the truth "
    "clearly less often."
)
"""What stands beside every bootstrap over seeds."""

T = TypeVar("T")

Strata = Sequence[Sequence[Sequence[float]]]
"""Stratum -> unit -> the Δ that belong to it, such as student setting -> seed -> Δ of each pair with that student run.

Strata are kept, units within them are drawn or flipped as a whole.
"""

ENOUGH = 3
"""With fewer seeds than this, no conclusion is drawn."""


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


def complete(values: Iterable[T | None]) -> list[T]:
    """All of the values, or none of them if one is missing: nothing is computed over a hole."""
    every = list(values)
    known = [value for value in every if value is not None]
    return known if len(known) == len(every) else []


def is_hole(value: object) -> bool:
    """Whether a value is missing: None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


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


def t_interval(values: Iterable[float], level: float = LEVEL) -> tuple[float, float]:
    """The two ends of Student's t interval of the mean of `values`: mean ± t(n−1)·s/√n; NaN for one value.

    It supposes independent, roughly normal values; over seeds it says nothing about other teachers or images.

    Raises:
        ValueError: there are no values, or one is not finite.
    """
    known = _checked(values)
    mean, std = mean_std(known)
    if len(known) < 2:
        return math.nan, math.nan
    half = t_quantile(len(known) - 1, level) * std / math.sqrt(len(known))
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


@dataclass(frozen=True)
class Pooled:
    """What all Δ of one method say together; in points.

    Attributes:
        n: Δ in all; `units` of them are independent (those that share a student run are one).
        low, high: 95 % stratified bootstrap interval of the mean; NaN if no stratum has two units.
        p: two-sided sign-flip p, `exact` or from `FLIPS` random patterns.
        wins: how many Δ are above 0.
    """

    n: int
    units: int
    mean: float
    low: float
    high: float
    p: float
    exact: bool
    wins: int


def pooled(strata: Strata, seed: int = 0) -> Pooled:
    """Mean of all Δ in `strata`, its bootstrap interval and sign-flip p (see `Strata`).

    Raises:
        ValueError: there are none, or one is not finite.
    """
    units = [unit for stratum in strata for unit in stratum]
    known = _checked(value for unit in units for value in unit)
    low, high = stratified_interval(strata, seed)
    sums = [math.fsum(unit) for unit in units]
    wins = int((known > 0).sum())
    return Pooled(
        len(known), len(sums), float(known.mean()), low, high, flip_p(sums, seed), len(sums) <= MAX_FLIPPED, wins
    )


def flip_p(differences: Sequence[float], seed: int = 0) -> float:
    """Sign-flip p: exact for up to `MAX_FLIPPED` differences, else from `FLIPS` random patterns."""
    exact = len(differences) <= MAX_FLIPPED
    return sign_flip_p(differences) if exact else sampled_sign_flip_p(differences, seed)


def sampled_sign_flip_p(differences: Iterable[float], seed: int = 0, flips: int = FLIPS) -> float:
    """`sign_flip_p` from `flips` random sign patterns and the observed one, so that it is never 0.

    Raises:
        ValueError: there are no differences, or one is not finite.
    """
    known = _checked(differences)
    random = np.random.default_rng(seed)
    bound = abs(known.sum()) - 1e-9 * np.abs(known).sum()
    reached, left = 1, flips
    while left:
        rows = min(left, 10_000)
        signs = 2.0 * random.integers(0, 2, size=(rows, len(known))) - 1
        reached += int(np.count_nonzero(np.abs(signs @ known) >= bound))
        left -= rows
    return reached / (flips + 1)


def stratified_interval(strata: Strata, seed: int = 0, draws: int = DRAWS) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of all Δ: each stratum's units are drawn anew, with replacement.

    NaN if no stratum has two units. With few units it covers less than it says (`UNDER_COVERAGE`).

    Raises:
        ValueError: there are no Δ, or one is not finite.
    """
    _checked(value for stratum in strata for unit in stratum for value in unit)
    if max(len(stratum) for stratum in strata) < 2:
        return math.nan, math.nan
    random = np.random.default_rng(seed)
    sums, counts = np.zeros(draws), np.zeros(draws)
    for stratum in strata:
        chosen = random.integers(0, len(stratum), size=(draws, len(stratum)))
        sums += np.array([math.fsum(unit) for unit in stratum])[chosen].sum(axis=1)
        counts += np.array([len(unit) for unit in stratum])[chosen].sum(axis=1)
    return percentiles(sums / counts)


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """The two ends that hold the middle 95 % of `values`."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given: rejecting those below α keeps the family's error at α."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def t_quantile(degrees: int, level: float = LEVEL) -> float:
    """Two-sided quantile of Student's t distribution: 4.303 for 2 degrees of freedom at 95 %."""
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    return float(stdtrit(degrees, (1 + level) / 2))


def _checked(values: Iterable[float]) -> np.ndarray:
    known = np.asarray(list(values), dtype=np.float64)
    if not known.size:
        raise ValueError("no values")
    if not np.isfinite(known).all():
        raise ValueError(f"values with a hole: {known.tolist()}")
    return known
