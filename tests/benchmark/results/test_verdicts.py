import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.results.verdicts import Verdict, judge, judge_delta

T2 = 4.302653
"""t(2, 0.975), from tables."""


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        ([], Verdict.NOT_RUN),
        ([74.0], Verdict.TOO_FEW),
        ([74.0, 74.2], Verdict.TOO_FEW),
        # mean 74.5, s 0.1: 0.5 off is reproduced still; the noise is 4.302653·0.1·√(4/3) = 0.497
        ([74.4, 74.5, 74.6], Verdict.REPRODUCED),
        ([74.41, 74.51, 74.61], Verdict.NOT_REPRODUCED),
        # mean 75, s 0.2: 1.0 off, noise 0.994
        ([74.8, 75.0, 75.2], Verdict.NOT_REPRODUCED),
        # mean 75, s 0.21: noise 1.043
        ([74.79, 75.0, 75.21], Verdict.WITHIN_NOISE),
        # far from each other, but near on average
        ([70.0, 74.0, 78.0], Verdict.REPRODUCED),
    ],
)
def test_absolute_verdicts_by_hand(ours, verdict) -> None:
    assert judge(ours, 74.0).verdict is verdict


def test_the_noise_is_that_of_one_more_training() -> None:
    found = judge([74.8, 75.0, 75.2], 74.0)
    assert (found.difference, found.noise) == (pytest.approx(1.0), pytest.approx(T2 * 0.2 * math.sqrt(4 / 3)))


def test_delta_verdict_by_hand() -> None:
    students, methods = [73.0, 74.0, 75.0], [74.0, 75.0, 76.6]
    deltas = [1.0, 1.0, 1.6]
    found = judge_delta(deltas, methods, students, published=3.0)
    # s_Δ² = 0.12, s_method² = 1.72, s_student² = 1
    assert found.noise == pytest.approx(T2 * math.sqrt(0.12 / 3 + 1.72 + 1.0), rel=1e-6)
    assert (found.difference, found.verdict) == (pytest.approx(-1.8), Verdict.WITHIN_NOISE)
    assert judge_delta(deltas, methods, students, 1.2).verdict is Verdict.REPRODUCED
    assert judge_delta(deltas, methods, students, 20.0).verdict is Verdict.NOT_REPRODUCED
    assert judge_delta(deltas[:2], methods[:2], students[:2], 1.0).verdict is Verdict.TOO_FEW
    assert judge_delta([], [], [], 1.0).verdict is Verdict.NOT_RUN


def test_what_is_assumed_is_said() -> None:
    found = judge([74.0, 74.1, 74.2], 74.0, ("protocol cirkd", "best validation"))
    assert found.text == "reproduced, assumed: protocol cirkd; best validation"


@given(st.lists(st.floats(0, 100), min_size=3, max_size=8), st.floats(0, 100))
def test_verdicts_are_symmetric_and_reproduced_near_the_mean(ours, published) -> None:
    found = judge(ours, published)
    mirrored = judge([-value for value in ours], -published)
    assert found.verdict is mirrored.verdict
    assert judge(ours, sum(ours) / len(ours)).verdict is Verdict.REPRODUCED
    assert (found.verdict is Verdict.REPRODUCED) == (abs(found.difference) <= 0.5 + 1e-9)
