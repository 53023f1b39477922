"""`kdseg data check`: whatever is wrong with a dataset's files is one clear line."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.cli.__main__ import main
from benchmark.core.errors import KdsegError
from benchmark.data import layouts
from benchmark.data.check import inspect
from benchmark.spec import definitions
from tests.trees import official, tree

SETS = [name for name in definitions.names("datasets") if definitions.dataset(name).layout == "files"]


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Run `data check` on a tree that `damage` was done to; returns the exit code and the lines that name problems."""

    def run(name, damage=lambda root: None, *options):
        definition = official(name)
        monkeypatch.setattr(definitions, "dataset", lambda _: definition)
        root = tree(name, tmp_path / "data")
        damage(root)
        code = main(["data", "check", name, "--root", str(root), *options])
        printed = capsys.readouterr()
        assert printed.err == "", "progress is for terminals"
        return code, [line.removeprefix("problem: ") for line in printed.out.splitlines() if line.startswith("problem")]

    return run


@pytest.mark.parametrize("name", SETS)
def test_an_official_dataset_has_no_problem(name, check):
    assert check(name) == (0, [])


def test_facts_are_those_of_the_files(tmp_path):
    found = inspect(official("voc"), tree("voc", tmp_path), workers=2)
    train, val = found.splits
    assert (train.images, train.official, val.images) == (4, 4, 2) and not found.problems
    assert train.sizes == {(60, 80): 1, (64, 80): 1, (68, 80): 1, (72, 80): 1}
    assert train.labels == tuple(range(21)) and len(train.list_hash) == 16 and train.list_hash != val.list_hash


def _lose_one(root):
    for path in ("images/train/0001TP_000003.jpg", "labels/train/0001TP_000003.png"):
        (root / path).unlink()
    names = root / "splits/train.txt"
    names.write_text("".join(names.read_text().splitlines(keepends=True)[:-1]))


def _foreign_list(root):
    (root / "ImageSets/Segmentation/trainaug.txt").write_text("2007_000000\n2007_000001\n2007_000002\n2011_009999\n")


def _label_ids(root):
    for path in root.glob("gtFine/*/*/*_labelIds.png"):
        path.replace(path.with_name(path.name.replace("labelIds", "labelTrainIds")))


def _no_train_ids(root):
    for path in root.glob("gtFine/*/*/*_labelTrainIds.png"):
        path.unlink()


def _no_sbd(root):
    shutil.rmtree(root / "SegmentationClassAug")


def _in_both(root):
    for kind, suffix in (("images", "jpg"), ("labels", "png")):
        shutil.copy(root / f"{kind}/train/0001TP_000001.{suffix}", root / f"{kind}/val/0001TP_000001.{suffix}")
    (root / "splits/val.txt").write_text("0016E5_000000\n0001TP_000001\n")


def _same_content(root):
    shutil.copy(root / "images/training/ADE_train_00000001.jpg", root / "images/validation/ADE_val_00000001.jpg")


def _cut_off(root):
    for path in sorted(root.glob("images/train/*.jpg"))[1:]:
        path.write_bytes(path.read_bytes()[:-40])


def _contradicts_voc(root):
    own = root / "SegmentationClass/2008_000001.png"
    own.parent.mkdir()
    labels = np.array(Image.open(root / "SegmentationClassAug/2008_000001.png"))
    Image.fromarray(np.where(labels == 3, 4, labels)).save(own)


BAD = {
    "number of images": (
        "camvid",
        _lose_one,
        ["train: 3 images, officially 4; complete it, or remove what is too much"],
    ),
    "foreign split list": (
        "voc",
        _foreign_list,
        ["train: ImageSets/Segmentation/trainaug.txt names other images than the official split (hash "],
    ),
    "labelIds under another name": (
        "cityscapes",
        _label_ids,
        [
            "label ROOT/gtFine/train/aachen/aachen_000000_000019_gtFine_labelTrainIds.png: holds 19, 20, 21, 22, 23, "
            "…; the labels of cityscapes are 0 to 18, and 255 for void; these look like labelIds: remove them, then "
            "`kdseg data prepare cityscapes` (and 3 more like it)",
            "label ROOT/gtFine/val/frankfurt/frankfurt_000000_000019_gtFine_labelTrainIds.png: holds 19, 20, ",
        ],
    ),
    "only labelIds": (
        "cityscapes",
        _no_train_ids,
        [
            f"data root ROOT: cityscapes {split}: {count} labels are missing, first gtFine/"
            for split, count in (("train", 4), ("val", 2))
        ],
    ),
    "SBD missing": (
        "voc",
        _no_sbd,
        [
            "data root ROOT: SegmentationClassAug is missing or empty; expected Pascal VOC 2012 Aug; "
            "SegmentationClassAug holds the labels of VOC's own SegmentationClass and, for the other images, those of "
            "SBD; `kdseg data prepare voc --data-root DIR --sbd DIR` makes it and the list trainaug.txt"
        ],
    ),
    "a validation image that is trained on": (
        "camvid",
        _in_both,
        [
            "val: splits/val.txt names other images than the official split (hash ",
            "val: 0001TP_000001 is also in train; validation must be on other images",
            "same content: images/train/0001TP_000001.jpg and images/val/0001TP_000001.jpg",
        ],
    ),
    "an image twice": (
        "ade20k",
        _same_content,
        ["same content: images/training/ADE_train_00000001.jpg and images/validation/ADE_val_00000001.jpg"],
    ),
    "cut off": (
        "camvid",
        _cut_off,
        [
            "image ROOT/images/train/0001TP_000001.jpg: is cut off (its JPEG data have no end); replace it by a good "
            "copy (and 2 more like it)"
        ],
    ),
    "labels that are not VOC's own": (
        "voc",
        _contradicts_voc,
        [
            "label ROOT/SegmentationClassAug/2008_000001.png: differs from ROOT/SegmentationClass/2008_000001.png, "
            "which goes before it; remove it, then `kdseg data prepare`"
        ],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_each_problem_is_one_line(case, check, tmp_path):
    name, damage, expected = BAD[case]
    code, problems = check(name, damage)
    assert code == 1 and len(problems) == len(expected), problems
    for problem, said in zip(problems, expected, strict=True):
        assert problem.startswith(said.replace("ROOT", str(tmp_path / "data")))


def test_a_root_without_permission_is_one_line(check, monkeypatch, tmp_path):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    found = check("camvid", lambda root: monkeypatch.setattr(layouts.os, "listdir", refuse))
    assert found == (1, [f"data root {tmp_path / 'data'}: cannot be read: Permission denied"])


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"decode_head.conv_seg.weight": torch.zeros(19, 4, 1, 1)}, "tells 19 classes apart, camvid has 11"),
        ({"state_dict": {"decode_head.conv_seg.weight": torch.zeros(21, 4)}}, "tells 21 classes apart, camvid has 11"),
        (
            {"head.block.4.weight": torch.zeros(11, 4)},
            "holds no decode_head.conv_seg.weight; turn it into ours with `kdseg import-checkpoint`",
        ),
        ({"decode_head.conv_seg.weight": torch.zeros(11, 4, 1, 1)}, None),
    ],
)
def test_a_checkpoint_must_tell_as_many_classes_apart(state, said, check, tmp_path):
    file = tmp_path / "teacher.pth"
    torch.save(state, file)
    found = check("camvid", lambda root: None, "--checkpoint", str(file))
    assert found == ((1, [f"{file}: {said}"]) if said else (0, []))


def test_the_drawn_set_has_no_files():
    with pytest.raises(KdsegError, match="dataset drawn: is drawn; it has no files to check"):
        inspect(definitions.dataset("drawn"), None)


@pytest.mark.parametrize("options", [["check", "voc", "--sbd", "DIR"], ["prepare", "voc", "--checkpoint", "FILE"]])
def test_options_of_the_other_action_are_refused(options, capsys):
    assert main(["data", *options, "--root", "."]) == 2
    assert f"error: {options[2]}: goes with `data " in capsys.readouterr().err
