"""`kdseg data prepare`: Cityscapes' labelTrainIds, VOC's SegmentationClassAug and its list."""

import shutil

import numpy as np
import pytest
from cityscapesscripts.helpers.labels import labels as label_table
from hypothesis import given
from hypothesis.extra import numpy as arrays
from PIL import Image
from scipy.io import savemat

from benchmark.cli.__main__ import main
from benchmark.core.errors import KdsegError
from benchmark.data.check import inspect
from benchmark.data.prepare import prepare, read_sbd, to_train_ids
from benchmark.spec import definitions
from tests.trees import official, tree

CITYSCAPES = definitions.dataset("cityscapes")


def pixels(path):
    return np.array(Image.open(path))


@given(arrays.arrays(np.uint8, (3, 5)))
def test_train_ids_are_the_places_of_evaluated_ids_and_void_for_all_others(labels):
    found = to_train_ids(labels, CITYSCAPES.label_ids)
    known = np.isin(labels, CITYSCAPES.label_ids)
    assert (found[~known] == 255).all()
    assert np.array_equal(np.array(CITYSCAPES.label_ids)[found[known]], labels[known])


def test_train_ids_are_those_of_cityscapes_own_table():
    for label in label_table:
        if label.id >= 0:
            (found,) = to_train_ids(np.array([label.id], np.uint8), CITYSCAPES.label_ids)
            assert found == (label.trainId if 0 <= label.trainId < 19 else 255)


def test_cityscapes_labels_are_made_beside_the_downloads(tmp_path, capsys):
    root = tree("cityscapes", tmp_path)
    expected = {}
    for path in sorted(root.glob("gtFine/*/*/*_labelTrainIds.png")):
        expected[path] = pixels(root / path)
        path.unlink()
    kept = next(iter(expected))
    kept.write_bytes(b"mine")
    assert main(["data", "prepare", "cityscapes", "--data-root", str(root)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train labelTrainIds: 3 made, 1 were there",
        "val labelTrainIds: 2 made, 0 were there",
    ]
    assert kept.read_bytes() == b"mine", "what is there is never overwritten"
    for path, labels in expected.items():
        if path != kept:
            # the tree draws 255 for void; its labelIds say 0 (unlabelled) there
            assert np.array_equal(pixels(path), labels)


@pytest.fixture
def voc(tmp_path):
    """VOC2012 as it is downloaded, without SegmentationClassAug, and SBD: (definition, root, SBD, wanted labels)."""
    definition, root, sbd = official("voc"), tree("voc", tmp_path / "VOC2012"), tmp_path / "benchmark_RELEASE/dataset"
    wanted = {path.stem: pixels(path) for path in (root / "SegmentationClassAug").glob("*.png")}
    lists = root / "ImageSets/Segmentation"
    train = (lists / "trainaug.txt").read_text().split()
    val = (lists / "val.txt").read_text().split()
    (root / "SegmentationClass").mkdir()
    for name in (train[0], *val):
        (root / f"SegmentationClassAug/{name}.png").rename(root / f"SegmentationClass/{name}.png")
    shutil.rmtree(root / "SegmentationClassAug")
    (lists / "train.txt").write_text(train[0] + "\n")
    (lists / "trainaug.txt").unlink()
    (sbd / "cls").mkdir(parents=True)
    for name in (*train[1:], val[0]):
        # SBD has labels of VOC's validation images too; those must not be trained on, nor go before VOC's own
        labels = wanted[name] if name in train else np.zeros_like(wanted[name])
        savemat(sbd / f"cls/{name}.mat", {"GTcls": {"Segmentation": labels, "CategoriesPresent": np.arange(3)}})
    (sbd / "train.txt").write_text("\n".join(train[1:3]) + "\n")
    (sbd / "val.txt").write_text("\n".join([*train[3:], val[0]]) + "\n")
    del wanted["2011_009999"]
    return definition, root, sbd, wanted


@pytest.mark.parametrize("given", [True, False])
def test_voc_gets_the_labels_of_sbd_and_keeps_its_own(voc, given):
    definition, root, sbd, wanted = voc
    said = prepare(definition, root, sbd.parent if given else None)
    assert said == ["SegmentationClassAug: 6 made, 0 were there", "ImageSets/Segmentation/trainaug.txt: 4 names"]
    assert {path.stem for path in (root / "SegmentationClassAug").iterdir()} == wanted.keys()
    for name, labels in wanted.items():
        assert np.array_equal(pixels(root / f"SegmentationClassAug/{name}.png"), labels)
    assert Image.open(root / "SegmentationClassAug/2007_000002.png").getpalette()[:6] == [0, 0, 0, 128, 0, 0]
    assert inspect(definition, root).problems == ()
    assert prepare(definition, root)[0] == "SegmentationClassAug: 0 made, 6 were there", "and then needs SBD no more"


def _without(place):
    return lambda root, sbd: shutil.rmtree(sbd / place) if (sbd / place).is_dir() else (sbd / place).unlink()


def _other_mat(root, sbd):
    savemat(sbd / "cls/2007_000002.mat", {"GTinst": {"Segmentation": np.zeros((3, 3), np.uint8)}})


def _cut_mat(root, sbd):
    path = sbd / "cls/2007_000002.mat"
    path.write_bytes(path.read_bytes()[:200])


def _shorter_list(root, sbd):
    (sbd / "train.txt").write_text("2007_000001\n")


def _foreign_list(root, sbd):
    (root / "ImageSets/Segmentation/trainaug.txt").write_text("2007_000001\n")


URL = "http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz"
BAD = {
    "no SBD": (_without("cls"), "--sbd SBD: holds no folder cls with .mat files; unpack URL and pass its folder"),
    "a mat missing": (
        _without("cls/2007_000002.mat"),
        "SBD/cls/2007_000002.mat: is missing; SBD is incomplete, unpack URL again",
    ),
    "another mat": (
        _other_mat,
        "SBD/cls/2007_000002.mat: is no label file of SBD (GTcls.Segmentation): KeyError",
    ),
    "a mat cut off": (_cut_mat, "SBD/cls/2007_000002.mat: is no label file of SBD (GTcls.Segmentation): "),
    "a list shorter": (
        _shorter_list,
        "SBD: train.txt, val.txt and VOC's train.txt name 3 images outside of VOC's val.txt that "
        "are not the 4 official ones; unpack URL again",
    ),
    "another list there": (
        _foreign_list,
        "ROOT/ImageSets/Segmentation/trainaug.txt: is there and names other images than the 4 official ones; remove it",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_sbd_is_one_line_and_leaves_no_list(case, voc):
    definition, root, sbd, _ = voc
    damage, said = BAD[case]
    damage(root, sbd)
    with pytest.raises(KdsegError) as error:
        prepare(definition, root, sbd)
    for short, long in (("SBD/", f"{sbd}/"), ("SBD:", f"{sbd}:"), ("ROOT", str(root)), ("URL", URL)):
        said = said.replace(short, long)
    assert str(error.value).startswith(said)
    assert case == "another list there" or not (root / "ImageSets/Segmentation/trainaug.txt").exists()


def test_without_sbd_one_line_says_where_it_is(voc, capsys):
    _, root, sbd, _ = voc
    shutil.rmtree(sbd.parent)
    with pytest.raises(KdsegError, match="labels of SBD are missing; unpack http.* and pass its folder as --sbd DIR"):
        prepare(definitions.dataset("voc"), root)


def test_labels_that_are_no_8_bit_map_are_refused(tmp_path):
    savemat(tmp_path / "a.mat", {"GTcls": {"Segmentation": np.zeros((3, 3), np.int32)}})
    with pytest.raises(KdsegError, match=r"a.mat: GTcls.Segmentation is int32 \(3, 3\), not 8-bit labels \(H, W\)"):
        read_sbd(tmp_path / "a.mat")


@pytest.mark.parametrize("name", ["ade20k", "camvid"])
def test_sets_that_are_read_as_they_come_say_so(name, tmp_path):
    with pytest.raises(KdsegError, match=f"dataset {name}: needs no preparation; it is read as it is distributed"):
        prepare(definitions.dataset(name), tree(name, tmp_path))


def test_cityscapes_without_any_labels_is_one_line(tmp_path):
    root = tree("cityscapes", tmp_path)
    shutil.rmtree(root / "gtFine/train")
    with pytest.raises(KdsegError, match="gtFine/train holds no labelIds to prepare; unpack gtFine there"):
        prepare(CITYSCAPES, root)
