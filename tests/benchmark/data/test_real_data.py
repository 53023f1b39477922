"""Real pictures, where they lie: `KDSEG_DATA=DIR` names a folder with some or all of these sets (they are not ours to
distribute), else these tests are skipped.

    camvid_240x180/                                       CamVid with the splits of the SegNet tutorial, 240x180
    samples/ade20k/{images,annotations}_ADE_val_*.{jpg,png}
    samples/voc/labelme/{JPEGImages,SegmentationClass}/
    samples/mmseg_tests/pseudo_cityscapes_dataset/        one frame, in Cityscapes' own layout
"""

import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.core.errors import KdsegError
from benchmark.data.datasets import train_batches, train_dataset, val_batches, val_dataset
from benchmark.models.segmentation import Preprocessor
from benchmark.spec import definitions


@pytest.fixture(scope="module")
def data():
    """The folder of real data."""
    if not os.environ.get("KDSEG_DATA"):
        missing("KDSEG_DATA is not set: no real data")
    folder = Path(os.environ["KDSEG_DATA"])
    assert folder.is_dir(), f"KDSEG_DATA={folder}: no such folder"
    return folder


def missing(reason):
    """Skip, or fail where real data are required, as in a CI that has them."""
    if os.environ.get("KDSEG_REQUIRE_DATA") == "1":
        pytest.fail(f"KDSEG_REQUIRE_DATA is 1, but {reason}")
    pytest.skip(reason)


def part(data, name):
    if not (data / name).is_dir():
        missing(f"KDSEG_DATA has no {name}")
    return data / name


def copy(pairs, root):
    for source, target in pairs:
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, root / target)


@pytest.fixture
def camvid(data):
    return part(data, "camvid_240x180")


@pytest.fixture
def ade20k(data, tmp_path):
    """The samples as a tree: all in validation, and again in training."""
    source = part(data, "samples/ade20k")
    for kind, split in itertools.product(("images", "annotations"), ("training", "validation")):
        files = source.glob(f"{kind}_ADE_val_*")
        copy([(path, f"{kind}/{split}/{path.name.removeprefix(kind + '_')}") for path in files], tmp_path)
    return tmp_path


@pytest.fixture
def voc(data, tmp_path):
    source = part(data, "samples/voc/labelme")
    names = sorted(path.stem for path in (source / "JPEGImages").iterdir())
    copy([(source / f"JPEGImages/{name}.jpg", f"JPEGImages/{name}.jpg") for name in names], tmp_path)
    copy([(source / f"SegmentationClass/{n}.png", f"SegmentationClassAug/{n}.png") for n in names], tmp_path)
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    for split in ("trainaug", "val"):
        (tmp_path / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names))
    return tmp_path


@pytest.fixture
def cityscapes(data, tmp_path):
    source = part(data, "samples/mmseg_tests/pseudo_cityscapes_dataset")
    for kind in ("leftImg8bit", "gtFine"):
        for split in ("train", "val"):
            shutil.copytree(source / kind / "val", tmp_path / kind / split)
    return tmp_path


def whole(name, root, split="val"):
    """All samples of a split, one by one: (pictures, labels)."""
    batches = [raw for _, raw in val_batches(val_dataset(definitions.dataset(name), root, split), 1, 0)]
    return (
        [raw["inputs"][0].numpy() for raw in batches],
        [raw["data_samples"][0].gt_sem_seg.data[0].numpy() for raw in batches],
    )


def trains(name, root):
    protocol = definitions.protocol("camvid-small")
    recipe = protocol.recipes["cnn"].data
    data = train_dataset(definitions.dataset(name), recipe, root, 0)
    batch = Preprocessor(protocol.normalisation, recipe.crop, torch.device("cpu")).train(
        next(train_batches(data, 2, 0, 0))
    )
    classes = len(definitions.dataset(name).classes)
    return batch.inputs.shape[-2:] == recipe.crop and set(batch.target.unique().tolist()) <= {*range(classes), 255}


@pytest.mark.parametrize(
    ("dataset", "split", "file"),
    [
        ("voc", "train", "voc/train_aug.txt"),
        ("voc", "val", "voc/val.txt"),
        ("cityscapes", "train", "cityscapes/train.lst"),
        ("cityscapes", "val", "cityscapes/val.lst"),
        ("camvid", "train", "CamVid/camvid_train_list.txt"),
        ("camvid", "val", "CamVid/camvid_val_list.txt"),
    ],
)
def test_official_splits_are_those_of_the_codebases(data, dataset, split, file):
    definition = definitions.dataset(dataset)
    lines = (part(data, "samples/lists") / file).read_text().split()
    pictures = {Path(word).name for word in lines if "gtFine" not in word and "label" not in word.lower()}
    names = {picture.removesuffix(definition.image_suffix).removesuffix(".png") for picture in pictures}
    assert len(names) == definition.splits[split].count
    assert definitions.names_hash(names) == definition.splits[split].official


@pytest.mark.parametrize(("split", "count"), [("train", 367), ("val", 101)])
def test_camvid_is_whole_and_looks_like_streets(camvid, split, count):
    pictures, labels = whole("camvid", camvid, split)
    assert len(pictures) == definitions.dataset("camvid").splits[split].count == count
    assert {picture.shape for picture in pictures} == {(3, 180, 240)}
    assert {label.shape for label in labels} == {(180, 240)}
    rows = np.stack([np.bincount(np.stack(labels)[:, row].ravel(), minlength=256) for row in range(180)])
    shares = rows.sum(0) / rows.sum()
    assert shares[11:255].sum() == 0 and shares[255] < 0.1
    assert {0, 1, 3, 5} <= set(np.argsort(shares)[-5:].tolist()), "sky, building, road, tree are among the first five"
    assert rows[5, 3] == 0 and rows[170, 0] == 0, "road is not at the top, nor sky at the bottom"
    assert trains("camvid", camvid)


def test_ade20k_samples(ade20k):
    pictures, labels = whole("ade20k", ade20k)
    assert [label.shape for label in labels] == [(512, 683), (364, 500), (300, 400)]
    assert [picture.shape[1:] for picture in pictures] == [label.shape for label in labels]
    assert np.unique(labels[0]).tolist() == [0, 1, 2, 4, 6, 9, 17, 255]
    assert trains("ade20k", ade20k)


def test_voc_samples(voc):
    _, labels = whole("voc", voc)
    assert [np.unique(label).tolist() for label in labels] == [[0, 5, 15, 255], [0, 9, 15, 18, 255], [0, 6, 7]]
    assert trains("voc", voc)


def test_a_cityscapes_frame(cityscapes):
    _, labels = whole("cityscapes", cityscapes)
    assert np.unique(labels[0]).tolist() == [0, 1, 2, 4, 5, 7, 8, 10, 11, 13, 255]
    assert trains("cityscapes", cityscapes)


def test_cityscapes_other_kinds_of_labels_are_refused(cityscapes):
    labels = cityscapes / "gtFine/val/frankfurt"
    target = next(labels.glob("*_labelTrainIds.png"))
    for kind, said in (("labelIds", r"holds 20, 21, 23, 24, 26"), ("instanceIds", r"holds 16-bit numbers")):
        shutil.copy(next(labels.glob(f"*_{kind}.png")), target)
        with pytest.raises(KdsegError, match=f"{target.name}: {said}"):
            whole("cityscapes", cityscapes)
