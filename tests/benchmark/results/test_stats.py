import math
from itertools import product

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.results.stats import (
    holm,
    mean_std,
    pooled,
    sampled_sign_flip_p,
    sign_flip_p,
    stratified_interval,
    summary,
    t_interval,
)

numbers = st.lists(st.floats(-100, 100), min_size=1, max_size=8)


def test_mean_and_sample_standard_deviation_by_hand() -> None:
    assert mean_std([1.0, 2.0, 6.0]) == (3.0, pytest.approx(math.sqrt((4 + 1 + 9) / 2)))


def test_t_interval_by_hand() -> None:
    # t(2, 0.975) = 4.302653 from tables; mean 2, s = 1
    low, high = t_interval([1.0, 2.0, 3.0])
    assert (low, high) == (pytest.approx(2 - 4.302653 / math.sqrt(3)), pytest.approx(2 + 4.302653 / math.sqrt(3)))


def test_one_value_has_no_spread() -> None:
    found = summary([71.5])
    assert (found.n, found.mean, found.values) == (1, 71.5, (71.5,))
    assert all(math.isnan(value) for value in (found.std, found.low, found.high))


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf, 1.0]])
@pytest.mark.parametrize("function", [summary, mean_std, t_interval, sign_flip_p])
def test_a_hole_is_an_error(function, values) -> None:
    with pytest.raises(ValueError):
        function(values)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([0.4], 1.0),
        ([0.1, 0.2, 0.3], 0.25),
        ([-0.1, -0.2, -0.3], 0.25),
        # of the sums of ±1 ±2 ±4, those at least as far from 0 as −1 + 2 + 4 = 5 are 7, 5, −5 and −7
        ([-1.0, 2.0, 4.0], 0.5),
        ([0.0, 0.0], 1.0),
        ([1.0, -1.0], 1.0),
        # equal on paper, not in floating point: 0.1 + 0.2 − 0.3
        ([0.1, 0.2, -0.3], 1.0),
    ],
)
def test_sign_flip_by_hand(differences, p) -> None:
    assert sign_flip_p(differences) == p


def test_sign_flip_refuses_what_it_cannot_enumerate() -> None:
    with pytest.raises(ValueError, match="too many"):
        sign_flip_p([1.0] * 21)


@given(numbers)
def test_sign_flip_is_the_share_of_all_patterns(values) -> None:
    scale = sum(map(abs, values))
    sums = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in product((1, -1), repeat=len(values))
    ]
    assert sign_flip_p(values) == np.mean(np.array(sums) >= abs(sum(values)) - 1e-9 * scale)


@given(numbers)
def test_sign_flip_bounds_and_symmetry(values) -> None:
    p = sign_flip_p(values)
    assert 2.0 ** (1 - len(values)) <= p <= 1
    assert p == sign_flip_p([-value for value in values])


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8))
def test_interval_holds_the_mean_and_agrees_with_scipy(values) -> None:
    found = summary(values)
    assert found.low <= found.mean <= found.high
    if found.std > 1e-9:
        expected = scipy.stats.t.interval(0.95, len(values) - 1, found.mean, scipy.stats.sem(values))
        assert (found.low, found.high) == pytest.approx(expected)


@given(numbers, st.floats(-50, 50))
def test_a_shift_moves_the_mean_and_no_spread(values, shift) -> None:
    here, there = summary(values), summary([value + shift for value in values])
    assert there.mean == pytest.approx(here.mean + shift, abs=1e-9)
    assert there.std == pytest.approx(here.std, abs=1e-9, nan_ok=True)


strata = st.lists(
    st.lists(st.lists(st.floats(-100, 100), min_size=1, max_size=3), min_size=1, max_size=4), min_size=1, max_size=4
)


def test_pooled_flips_jointly_what_shares_a_student_run() -> None:
    # Two teachers of one student, three seeds: three units, so p is never below 0.25, though there are six Δ.
    found = pooled([[[1.0, 2.0], [1.5, 0.5], [2.0, 2.0]]])
    assert (found.n, found.units, found.wins, found.exact) == (6, 3, 6, True)
    assert found.mean == pytest.approx(1.5)
    assert found.p == 0.25
    # The same six Δ from students of their own: 2^(1−6).
    assert pooled([[[1.0], [1.5], [2.0]], [[2.0], [0.5], [2.0]]]).p == 2**-5


def test_stratified_bootstrap_against_all_resamples() -> None:
    # One stratum of two units: the mean of a resample is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4.
    assert stratified_interval([[[0.0], [1.0]]]) == (0.0, 1.0)
    # Strata are never mixed: each of these has no variance within.
    assert stratified_interval([[[1.0], [1.0]], [[3.0], [3.0]]]) == (2.0, 2.0)
    assert all(math.isnan(end) for end in stratified_interval([[[1.0]], [[3.0]]]))


def test_stratified_bootstrap_agrees_with_scipy() -> None:
    random = np.random.default_rng(1)
    values = random.normal(1.0, 2.0, size=40)
    ours = stratified_interval([[[value] for value in values]])
    theirs = scipy.stats.bootstrap((values,), np.mean, method="percentile", rng=2).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.05)


@settings(max_examples=20)
@given(strata)
def test_pooled_is_deterministic_and_within_its_values(values) -> None:
    found = pooled(values)
    flat = [value for stratum in values for unit in stratum for value in unit]
    assert pooled(values) == found or math.isnan(found.low)
    assert found.mean == pytest.approx(np.mean(flat), abs=1e-9)
    assert 2.0 ** (1 - found.units) <= found.p <= 1
    if not math.isnan(found.low):
        assert min(flat) - 1e-9 <= found.low <= found.high <= max(flat) + 1e-9


def test_sampled_sign_flips_approach_the_exact_ones() -> None:
    values = [0.3, -0.1, 0.4, 0.8, 0.2, -0.5, 0.9, 0.1]
    assert sampled_sign_flip_p(values) == pytest.approx(sign_flip_p(values), abs=0.02)
    assert sampled_sign_flip_p(values) == sampled_sign_flip_p(values)
    assert pooled([[[1.0]] * 25]).p == pytest.approx(1 / 10_001)


def test_holm_by_hand() -> None:
    # sorted: 0.01·4, 0.02·3, 0.03·2 (raised to the one before), 0.6·1
    assert holm([0.03, 0.01, 0.6, 0.02]) == pytest.approx([0.06, 0.04, 0.6, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni(values) -> None:
    for raw, adjusted in zip(values, holm(values), strict=True):
        assert raw <= adjusted <= min(1.0, raw * len(values)) + 1e-12
