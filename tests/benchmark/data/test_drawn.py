"""The drawn set: the same pixels everywhere, every class, and hard in the ways it says."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest

from benchmark.data import drawn
from benchmark.data.drawn import CLASSES, COUNTS, PALETTE, PERSON, POLE, SIZE, SKY, WATER, draw_scene
from benchmark.spec import definitions
from benchmark.spec.definitions import IGNORE

PINNED = {
    ("train", 0): "0d9cf5cf5b6bbe86",
    ("train", 299): "f2625cad666b9ef1",
    ("val", 0): "cb53c8256a9ef132",
    ("val", 79): "9f03f58edd5c5d29",
}


def digest(split: str, index: int) -> str:
    image, labels = draw_scene.__wrapped__(split, index)
    return sha256(image.tobytes() + labels.tobytes()).hexdigest()[:16]


@pytest.fixture(scope="module")
def scenes() -> tuple[np.ndarray, np.ndarray]:
    """All pictures and all labels of val."""
    images, labels = zip(*(draw_scene("val", index) for index in range(COUNTS["val"])), strict=True)
    return np.stack(images), np.stack(labels)


@pytest.mark.parametrize(("split", "index"), PINNED)
def test_pixels_are_pinned(split, index):
    """A change here is a new data set: raise `VERSION` with it, then pin anew."""
    assert (digest(split, index), drawn.VERSION) == (PINNED[split, index], 1)


def test_a_scene_depends_on_nothing_but_its_key():
    first = digest("train", 7)
    np.random.seed(1)
    draw_scene.__wrapped__("val", 7)
    assert digest("train", 7) == first


def test_shapes_and_types():
    image, labels = draw_scene("train", 0)
    assert image.shape == (*SIZE, 3) and labels.shape == SIZE
    assert image.dtype == labels.dtype == np.uint8
    assert not image.flags.writeable and not labels.flags.writeable


def test_labels_are_classes_or_void_and_all_of_them_occur(scenes):
    assert set(np.unique(scenes[1])) == {*range(len(CLASSES)), IGNORE}


def test_every_class_is_in_many_scenes_and_none_in_balance(scenes):
    share = np.array([(scenes[1] == c).mean() for c in range(len(CLASSES))])
    presence = np.array([(scenes[1] == c).any((1, 2)).mean() for c in range(len(CLASSES))])
    assert presence.min() > 0.5
    assert share.max() > 8 * share.min()
    assert {int(c) for c in share.argsort()[:3]} >= {PERSON, POLE}
    assert 0.005 < (scenes[1] == IGNORE).mean() < 0.1


def test_colour_alone_does_not_tell_water_from_sky(scenes):
    """The best threshold on colour, scene by scene, leaves many pixels of the two on the wrong side."""
    errors = []
    for image, labels in zip(*scenes, strict=True):
        colours = [image[labels == c].astype(float) for c in (SKY, WATER)]
        if min(map(len, colours)) < 200:
            continue
        axis = colours[1].mean(0) - colours[0].mean(0)
        sky, water = (np.sort(c @ axis) for c in colours)
        cuts = np.concatenate([sky, water])
        wrong = (1 - np.searchsorted(sky, cuts) / len(sky)) + np.searchsorted(water, cuts) / len(water)
        errors.append(wrong.min() / 2)
    assert len(errors) > 15 and np.mean(errors) > 0.1


def test_train_and_val_share_no_scene():
    images = [draw_scene(split, index)[0].tobytes() for split, count in COUNTS.items() for index in range(count)]
    assert len(set(images)) == sum(COUNTS.values())


def test_the_definition_says_the_same():
    definition = definitions.dataset("drawn")
    assert definition.classes == CLASSES and definition.palette == PALETTE
    assert {name: split.count for name, split in definition.splits.items()} == COUNTS
    assert definition.generator == drawn.VERSION
