import math
from itertools import product

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from benchmark.statistics import mean_std, sign_flip_p, summary, t_interval

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
