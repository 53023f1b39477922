import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.records.areas import scores
from benchmark.results.bootstrap import blocks, difference_interval, miou_interval
from benchmark.spec import definitions


def areas(seed: int, images: int = 12, classes: int = 4) -> np.ndarray:
    random = np.random.default_rng(seed)
    intersect = random.integers(0, 50, size=(images, classes))
    predicted, labelled = (intersect + random.integers(0, 50, size=(images, classes)) for _ in range(2))
    return np.stack([intersect, predicted + labelled - intersect, predicted, labelled], axis=1)


def test_the_interval_is_that_of_explicit_resamples() -> None:
    found = miou_interval(areas(1), [str(image) for image in range(12)])
    random = np.random.default_rng(5)
    mious = [scores(areas(1)[random.integers(0, 12, size=12)]).miou for _ in range(4000)]
    assert (found.low, found.high) == pytest.approx(np.quantile(mious, [0.025, 0.975]), abs=0.5)
    assert found.blocks == 12


def test_two_blocks_have_three_resamples() -> None:
    made = areas(2)
    of_block = ["a"] * 6 + ["b"] * 6
    ends = sorted([scores(made[:6]).miou, scores(made[6:]).miou])
    found = miou_interval(made, of_block)
    assert (found.low, found.high, found.blocks) == (pytest.approx(ends[0]), pytest.approx(ends[1]), 2)


def test_one_block_has_no_interval() -> None:
    assert miou_interval(areas(1), ["a"] * 12) is None


def test_an_absent_class_is_left_out_as_mmseg_does() -> None:
    made = areas(3)
    made[:, :, 3] = 0
    found = miou_interval(made, ["a", "b"] * 6)
    assert (found.low, found.high) == tuple(
        pytest.approx(end) for end in sorted([scores(made[::2, :, :3]).miou, scores(made[1::2, :, :3]).miou])
    )


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(0, 3))
def test_differences_of_the_same_areas_are_zero_and_signs_mirror(seed, draw) -> None:
    a, b, names = areas(seed), areas(seed + 1), [str(image % 5) for image in range(12)]
    zero = difference_interval([(a, a)], names, draw)
    assert (zero.low, zero.high) == (0.0, 0.0)
    there, back = difference_interval([(a, b), (b, a)], names, draw), difference_interval([(a, b)], names, draw)
    mirrored = difference_interval([(b, a)], names, draw)
    assert (there.low, there.high) == pytest.approx((0.0, 0.0), abs=1e-9)
    assert (back.low, back.high) == pytest.approx((-mirrored.high, -mirrored.low))
    assert difference_interval([(a, b)], names, draw) == back


def test_blocks_are_cities_drives_or_stretches() -> None:
    cityscapes, camvid = definitions.dataset("cityscapes"), definitions.dataset("camvid")
    assert blocks(["lindau_000001_000019", "munster_000002_000019"], cityscapes) == ["lindau", "munster"]
    frames = [f"0016E5_{frame:05d}" for frame in range(25)]
    assert [blocks(frames, camvid).count(f"0016E5 {place}") for place in range(3)] == [10, 10, 5]
    assert blocks(["0001TP_1", "0016E5_1"], camvid) == ["0001TP", "0016E5"]
    assert blocks(["b", "a"], definitions.dataset("drawn")) == ["b", "a"]
