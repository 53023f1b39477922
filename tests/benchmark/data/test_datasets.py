import itertools

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.data.datasets import EndlessSampler, train_batches, train_dataset, val_batches, val_dataset
from benchmark.models.segmentation import Preprocessor
from benchmark.spec import definitions
from tests.trees import tree

CAMVID = definitions.dataset("camvid")
DEMO = definitions.protocol("demo")


@pytest.fixture
def root(tmp_path):
    """A CamVid tree of the genuine layout: four training and two validation images."""
    return tree("camvid", tmp_path)


def recipe(**changes):
    return definitions.protocol("camvid-small").recipes["cnn"].data.model_copy(update={"crop": (40, 48)} | changes)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a["inputs"], b["inputs"], strict=True)) and all(
        torch.equal(x.gt_sem_seg.data, y.gt_sem_seg.data)
        for x, y in zip(a["data_samples"], b["data_samples"], strict=True)
    )


@given(st.integers(1, 30), st.integers(0, 100), st.integers(1, 4))
@settings(max_examples=30)
def test_every_epoch_is_a_permutation_and_ranks_share_it(size, seed, world):
    whole = list(itertools.islice(EndlessSampler(size, seed), 3 * size * world))
    assert [position for position, _ in whole] == list(range(3 * size * world))
    for epoch in range(3):
        assert sorted(index for _, index in whole[epoch * size : (epoch + 1) * size]) == list(range(size))
    for rank in range(world):
        assert list(itertools.islice(EndlessSampler(size, seed, 0, rank, world), size)) == whole[rank::world][:size]


def test_a_late_start_is_the_tail_of_the_whole_stream():
    whole = list(itertools.islice(EndlessSampler(7, 3), 60))
    assert list(itertools.islice(EndlessSampler(7, 3, start=41), 19)) == whole[41:]


def test_batches_are_the_same_for_any_number_of_workers_and_any_start():
    data = train_dataset(definitions.dataset("drawn"), DEMO.recipes["cnn"].data, None, seed=1)
    first = list(itertools.islice(train_batches(data, 2, 0, 0), 4))
    parallel = list(itertools.islice(train_batches(data, 2, 0, 2), 4))
    late = next(train_batches(data, 2, 3, 0))
    assert all(same(a, b) for a, b in zip(first, parallel, strict=True))
    assert same(first[3], late) and not same(first[0], first[1])


def test_another_seed_is_another_order_and_augmentation():
    one, other = (train_dataset(definitions.dataset("drawn"), DEMO.recipes["cnn"].data, None, seed) for seed in (0, 1))
    assert not same(next(train_batches(one, 2, 0, 0)), next(train_batches(other, 2, 0, 0)))


def test_loading_draws_nothing_from_the_outer_generators():
    data = train_dataset(definitions.dataset("drawn"), DEMO.recipes["cnn"].data, None, seed=1)
    torch.manual_seed(0)
    expected = torch.rand(())
    torch.manual_seed(0)
    next(train_batches(data, 2, 0, 0))
    assert torch.rand(()) == expected


def test_camvid_is_read_as_it_lies_on_disk(root):
    data = val_dataset(CAMVID, root)
    assert data.names() == ["0016E5_000000", "0016E5_000001"] and len(data.list_hash()) == 16
    (indices, raw), *rest = val_batches(data, batch=8, workers=0)
    assert indices == [0, 1] and rest == []
    label = cv2.imread(str(root / "labels/val/0016E5_000001.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(raw["data_samples"][1].gt_sem_seg.data[0].numpy(), label)
    image = cv2.imread(str(root / "images/val/0016E5_000001.jpg"))
    assert np.array_equal(raw["inputs"][1].numpy(), image.transpose(2, 0, 1))


def test_normalisation_takes_the_channels_in_the_order_that_the_network_expects(root):
    norm = definitions.protocol("camvid-small").normalisation
    _, raw = next(val_batches(val_dataset(CAMVID, root), 1, 0))
    inputs = Preprocessor(norm, None, torch.device("cpu")).evaluate(raw)
    image = cv2.imread(str(root / "images/val/0016E5_000000.jpg"))[..., ::-1]
    expected = ((image - np.array(norm.mean)) / np.array(norm.std)).transpose(2, 0, 1)
    np.testing.assert_allclose(inputs[0].numpy(), expected, atol=1e-4)


def test_small_crops_are_padded_after_normalisation_with_zeros_and_void(root):
    data = train_dataset(CAMVID, recipe(crop=(100, 120), scale=(1.0, 1.0)), root, 0)
    raw = next(train_batches(data, 2, 0, 0))
    batch = Preprocessor(definitions.protocol("camvid-small").normalisation, (100, 120), torch.device("cpu")).train(raw)
    assert batch.inputs.shape == (2, 3, 100, 120) and batch.target.shape == (2, 100, 120)
    assert (batch.inputs[:, :, 60:] == 0).all() and (batch.target[:, 60:] == 255).all()
    assert raw["data_samples"][0].gt_sem_seg.data.shape[-2:] == (60, 80)


def test_images_of_different_sizes_do_not_share_a_batch(root):
    cv2.imwrite(str(root / "images/val/0016E5_000001.jpg"), np.zeros((30, 50, 3), np.uint8))
    cv2.imwrite(str(root / "labels/val/0016E5_000001.png"), np.zeros((30, 50), np.uint8))
    assert [indices for indices, _ in val_batches(val_dataset(CAMVID, root), 8, 0)] == [[0], [1]]
