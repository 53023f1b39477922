"""Every data set of files: its tree is found, read and trained on; what is missing is one line."""

import itertools
import shutil

import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from benchmark.core.errors import KdsegError
from benchmark.data import layouts
from benchmark.data.datasets import train_batches, train_dataset, val_batches, val_dataset
from benchmark.data.layouts import find_pairs
from benchmark.data.loading import LoadSample
from benchmark.models.build import build_network, forward_taps
from benchmark.models.segmentation import Preprocessor, task_losses
from benchmark.spec import definitions
from tests.trees import COUNTS, tree

NAMES = {
    "camvid": ["0016E5_000000", "0016E5_000001"],
    "voc": ["2008_000000", "2008_000001"],
    "ade20k": ["ADE_val_00000001", "ADE_val_00000002"],
    "cityscapes": ["frankfurt_000000_000019", "frankfurt_000001_000019"],
}
SETS = sorted(NAMES)


@pytest.fixture(params=SETS)
def definition(request):
    return definitions.dataset(request.param)


@pytest.fixture
def root(definition, tmp_path):
    return tree(definition.name, tmp_path)


def test_there_is_a_tree_for_every_dataset_of_files():
    assert [n for n in definitions.names("datasets") if definitions.dataset(n).layout == "files"] == SETS


def test_samples_are_found_under_their_names(definition, root):
    assert val_dataset(definition, root).names() == NAMES[definition.name]
    assert len(find_pairs(definition, "train", root)) == COUNTS["train"]


def test_pixels_and_labels_are_those_that_the_toolbox_loads(definition, root):
    recipe = definitions.protocol("camvid-small").recipes["cnn"].data
    data = train_dataset(definition, recipe, root, 0)
    seen = set()
    for index in range(len(data)):
        info = data.get_data_info(index)
        theirs = LoadAnnotations()(LoadImageFromFile()(data.get_data_info(index)))
        ours = LoadSample(definition.name, len(definition.classes), definition.reduce_zero_label)(info)
        assert ours["img"].dtype == theirs["img"].dtype and np.array_equal(ours["img"], theirs["img"])
        assert ours["gt_seg_map"].dtype == theirs["gt_seg_map"].dtype == np.uint8
        assert np.array_equal(ours["gt_seg_map"], theirs["gt_seg_map"])
        assert {key: ours[key] for key in ("img_shape", "ori_shape", "seg_fields")} == {
            key: theirs[key] for key in ("img_shape", "ori_shape", "seg_fields")
        }
        seen |= set(np.unique(ours["gt_seg_map"]).tolist())
    assert seen == {*range(len(definition.classes)), 255}


def test_labels_are_those_on_disk_with_ade20ks_first_class_at_0(definition, root):
    for (_, raw), pair in zip(
        val_batches(val_dataset(definition, root), 1, 0), find_pairs(definition, "val", root), strict=True
    ):
        on_disk = np.array(Image.open(pair.label)).astype(int)
        if definition.reduce_zero_label:
            on_disk = np.where(on_disk == 0, 255, on_disk - 1)
        assert np.array_equal(raw["data_samples"][0].gt_sem_seg.data[0].numpy(), on_disk)


def test_two_iterations_of_training(definition, root):
    protocol = definitions.protocol("camvid-small")
    recipe = protocol.recipes["cnn"].data.model_copy(update={"crop": (32, 48), "batch": 2})
    preprocessor = Preprocessor(protocol.normalisation, recipe.crop, torch.device("cpu"))
    torch.manual_seed(0)
    network = build_network("segformer_tiny", len(definition.classes))
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    for raw in itertools.islice(train_batches(train_dataset(definition, recipe, root, 0), 2, 0, 0), 2):
        batch = preprocessor.train(raw)
        loss = sum(task_losses(network, forward_taps(network, batch.inputs), batch.target).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss) and batch.target.unique().max() <= 255


def test_dependent_images_are_one_block(tmp_path):
    blocks = {
        name: {
            definitions.dataset(name).block(pair.name)
            for pair in find_pairs(definitions.dataset(name), "train", tree(name, tmp_path / name))
        }
        for name in SETS
    }
    assert blocks["camvid"] == {"0001TP"} and blocks["cityscapes"] == {"aachen", "bremen"}
    assert len(blocks["voc"]) == len(blocks["ade20k"]) == COUNTS["train"]


def test_folders_may_be_links(tmp_path):
    root = tree("cityscapes", tmp_path / "data")
    city = root / "leftImg8bit/val/frankfurt"
    shutil.move(city, tmp_path / "elsewhere")
    city.symlink_to(tmp_path / "elsewhere")
    assert val_dataset(definitions.dataset("cityscapes"), root).names() == NAMES["cityscapes"]


def _remove(*paths):
    def damage(root):
        for path in paths:
            shutil.rmtree(root / path) if (root / path).is_dir() else (root / path).unlink()

    return damage


def _clear(path):
    def damage(root):
        shutil.rmtree(root / path)
        (root / path).mkdir()

    return damage


def _only_label_ids(root):
    for path in root.glob("gtFine/*/*/*_labelTrainIds.png"):
        path.unlink()


def _list(path, content):
    return lambda root: (root / path).write_bytes(content)


_VOC_LIST = "ImageSets/Segmentation/val.txt"
_SBD = f"; {definitions.dataset('voc').obtain}"
_IDS = f"; {definitions.dataset('cityscapes').obtain}"
MISSING = {
    "camvid image": (
        "camvid",
        _remove("images/val/0016E5_000001.jpg"),
        "camvid val: 1 image is missing: images/val/0016E5_000001.jpg",
    ),
    "voc images": (
        "voc",
        _remove("JPEGImages/2008_000000.jpg", "JPEGImages/2008_000001.jpg"),
        "voc val: 2 images are missing, first JPEGImages/2008_000000.jpg",
    ),
    "camvid list": ("camvid", _remove("splits/val.txt"), "the list splits/val.txt is missing"),
    "voc list": ("voc", _remove(_VOC_LIST), f"the list {_VOC_LIST} is missing{_SBD}"),
    "voc empty list": ("voc", _list(_VOC_LIST, b"\r\n\n"), f"voc val is empty: {_VOC_LIST} names no sample"),
    "voc doubled": (
        "voc",
        _list(_VOC_LIST, b"2008_000000\n2008_000001\n2008_000000\n"),
        f"the list {_VOC_LIST} names 2008_000000 more than once",
    ),
    "voc binary list": (
        "voc",
        _list(_VOC_LIST, b"\xff\xfe2008"),
        f"the list {_VOC_LIST} cannot be read: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
    ),
    "voc two columns": (
        "voc",
        _list(_VOC_LIST, b"2008_000000 1\n"),
        "voc val: 1 image is missing: JPEGImages/2008_000000 1.jpg",
    ),
    "voc labels": (
        "voc",
        _remove("SegmentationClassAug"),
        f"SegmentationClassAug is missing or empty; expected Pascal VOC 2012 Aug{_SBD}",
    ),
    "ade20k label without image": (
        "ade20k",
        _remove("images/validation/ADE_val_00000002.jpg"),
        "ade20k val: 1 image is missing: images/validation/ADE_val_00000002.jpg",
    ),
    "ade20k image without label": (
        "ade20k",
        _remove("annotations/validation/ADE_val_00000002.png"),
        "ade20k val: 1 label is missing: annotations/validation/ADE_val_00000002.png",
    ),
    "ade20k folder": (
        "ade20k",
        _remove("images/validation"),
        "images/validation is missing or empty; expected ADE20K",
    ),
    "ade20k empty folder": (
        "ade20k",
        _clear("annotations/validation"),
        "annotations/validation is missing or empty; expected ADE20K",
    ),
    "cityscapes only labelIds": (
        "cityscapes",
        _only_label_ids,
        "cityscapes val: 2 labels are missing, first "
        f"gtFine/val/frankfurt/frankfurt_000000_000019_gtFine_labelTrainIds.png{_IDS}",
    ),
    "cityscapes city": (
        "cityscapes",
        _remove("leftImg8bit/val/frankfurt/frankfurt_000001_000019_leftImg8bit.png"),
        "cityscapes val: 1 image is missing: leftImg8bit/val/frankfurt/frankfurt_000001_000019_leftImg8bit.png",
    ),
}


@pytest.mark.parametrize("case", MISSING)
def test_what_is_missing_is_one_line(case, tmp_path):
    name, damage, said = MISSING[case]
    root = tree(name, tmp_path)
    damage(root)
    with pytest.raises(KdsegError) as error:
        val_dataset(definitions.dataset(name), root)
    assert str(error.value) == f"data root {root}: {said}"


def test_nothing_of_the_set_in_its_folders_is_one_line(tmp_path):
    root = tree("ade20k", tmp_path)
    for folder in ("images", "annotations"):
        for path in (root / folder / "validation").iterdir():
            path.rename(path.with_suffix(".bmp"))
    with pytest.raises(KdsegError) as error:
        val_dataset(definitions.dataset("ade20k"), root)
    assert str(error.value) == f"data root {root}: ade20k val is empty: no *.jpg in images/validation"


@pytest.mark.parametrize("name", SETS)
def test_no_root_and_a_wrong_root_are_one_line(name, tmp_path):
    with pytest.raises(KdsegError, match=f"^dataset {name}: needs its files; pass --data-root DIR$"):
        val_dataset(definitions.dataset(name), None)
    nowhere = tmp_path / "nowhere"
    with pytest.raises(KdsegError) as error:
        val_dataset(definitions.dataset(name), nowhere)
    assert str(error.value) == f"data root {nowhere}: no such folder; pass the folder that holds {name} as --data-root"


def test_with_a_list_other_files_do_not_count(tmp_path):
    root = tree("voc", tmp_path)
    (root / "SegmentationClassAug/2011_009999.png").unlink()
    assert val_dataset(definitions.dataset("voc"), root).names() == NAMES["voc"]


@pytest.mark.parametrize(
    ("name", "inner"), [("voc", "VOC2012"), ("voc", "VOCdevkit/VOC2012"), ("ade20k", "ADEChallengeData2016")]
)
def test_the_root_may_be_a_folder_above_that_the_download_made(name, inner, tmp_path):
    tree(name, tmp_path / inner)
    assert val_dataset(definitions.dataset(name), tmp_path).names() == NAMES[name]


def test_a_root_without_permission_is_one_line(tmp_path, monkeypatch):
    root = tree("camvid", tmp_path)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(layouts.os, "listdir", refuse)
    with pytest.raises(KdsegError, match=f"^data root {root}: cannot be read: Permission denied$"):
        val_dataset(definitions.dataset("camvid"), root)
