import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.analysis.cka import cka, gram, unbiased_hsic

SEEDS = st.integers(0, 2**32 - 1)


def features(seed: int, n: int = 12, width: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, width)) + 3.0


def u_statistic(x: np.ndarray, y: np.ndarray) -> float:
    """HSIC by its definition as a U-statistic: a mean over all quadruples of different examples, in plain loops."""
    k, h, n = x @ x.T, y @ y.T, len(x)
    total, count = 0.0, 0
    for i in range(n):
        for j in range(n):
            for q in range(n):
                for r in range(n):
                    if len({i, j, q, r}) == 4:
                        total += k[i, j] * (h[i, j] + h[q, r] - 2 * h[i, q])
                        count += 1
    return total / count


def test_the_unbiased_hsic_is_the_u_statistic_over_quadruples():
    x, y = features(0, 7, 3), features(1, 7, 5)
    y[:, 0] += x[:, 0]
    assert unbiased_hsic(gram(x), gram(y)) == pytest.approx(u_statistic(x, y), rel=1e-10)


def test_cka_over_mini_batches_is_the_ratio_of_mean_u_statistics():
    pairs = [(features(s, 6, 3), features(s + 9, 6, 4) + features(s, 6, 1)) for s in range(3)]
    means = [
        np.mean([u_statistic(a, b) for a, b in found])
        for found in (pairs, [(x, x) for x, _ in pairs], [(y, y) for _, y in pairs])
    ]
    found = cka([gram(x) for x, _ in pairs], [gram(y) for _, y in pairs])
    assert found == pytest.approx(means[0] / math.sqrt(means[1] * means[2]), rel=1e-9)


@settings(max_examples=25)
@given(SEEDS, st.floats(1e-3, 1e3), st.integers(1, 3))
def test_rotation_and_one_scale_change_nothing_and_identical_features_have_1(seed, scale, batches):
    made = [features(seed + batch) for batch in range(batches)]
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(7, 7)))
    other = [x[:, :4] + features(seed + 50, 12, 4) for x in made]
    assert cka([gram(x) for x in made], [gram(x) for x in made]) == pytest.approx(1.0, abs=1e-9)
    turned = cka([gram(scale * x @ rotation) for x in made], [gram(y) for y in other])
    assert turned == pytest.approx(cka([gram(x) for x in made], [gram(y) for y in other]), abs=1e-7)


@settings(max_examples=25)
@given(SEEDS)
def test_a_shift_of_all_examples_changes_nothing(seed):
    x, y = features(seed), features(seed + 1, width=3)
    assert unbiased_hsic(gram(x + 5.0), gram(y)) == pytest.approx(unbiased_hsic(gram(x), gram(y)), rel=1e-6, abs=1e-7)


def test_independent_features_are_near_0_on_average_where_the_biased_form_is_not():
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=(16, 200)), rng.normal(size=(16, 200))) for _ in range(200)]
    assert abs(cka([gram(x) for x, _ in pairs], [gram(y) for _, y in pairs])) < 0.01

    def biased(x, y):
        centre = np.eye(16) - 1 / 16
        return float(np.trace(gram(x) @ centre @ gram(y) @ centre))

    x, y = pairs[0]
    assert biased(x, y) / math.sqrt(biased(x, x) * biased(y, y)) > 0.5


def test_features_that_are_constant_have_no_similarity_and_bad_shapes_are_refused():
    assert math.isnan(cka([gram(np.ones((8, 3)))], [gram(features(0, 8))]))
    assert math.isnan(cka([gram(np.zeros((8, 3)))], [gram(features(0, 8))]))
    assert cka([gram(1e90 * features(0))], [gram(features(0))]) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="4 or more"):
        unbiased_hsic(np.eye(3), np.eye(3))
    with pytest.raises(ValueError, match="2 and 1 mini-batches"):
        cka([np.eye(5)] * 2, [np.eye(5)])
