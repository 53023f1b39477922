"""`--stage`: a dataset is copied to the node's disk once, whole or not at all."""

import multiprocessing
import os
import shutil
from collections import namedtuple

import pytest

from benchmark.core.errors import KdsegError
from benchmark.data import staging
from benchmark.data.datasets import val_dataset
from benchmark.data.staging import stage
from benchmark.spec import definitions
from tests.trees import tree

VOC = definitions.dataset("voc")


@pytest.fixture
def source(tmp_path):
    return tree("voc", tmp_path / "source/VOC2012")


def _stage_counting(root, place, barrier, copies, found):
    """Stage in a process of its own; `copies` counts how often a copy is made."""
    copy = staging._copy

    def counted(*arguments):
        with copies.get_lock():
            copies.value += 1
        copy(*arguments)

    staging._copy = counted
    barrier.wait()
    found.put(stage(VOC, root, place))


@pytest.mark.slow
def test_of_two_processes_one_copies_and_both_get_the_whole(source, tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, copies, found = context.Barrier(2), context.Value("i", 0), context.Queue()
    arguments = (source, tmp_path / "node", barrier, copies, found)
    processes = [context.Process(target=_stage_counting, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    folders = {found.get(timeout=600) for _ in processes}
    for process in processes:
        process.join()
    assert copies.value == 1 and len(folders) == 1
    assert val_dataset(VOC, folders.pop()).names() == val_dataset(VOC, source).names()


def test_a_copy_holds_what_the_splits_name_and_is_taken_again(source, tmp_path, monkeypatch):
    place = tmp_path / "node"
    copied = stage(VOC, source.parent, place)
    assert copied.parent == place and val_dataset(VOC, copied).list_hash() == val_dataset(VOC, source).list_hash()
    assert not (copied / "JPEGImages/2011_009999.jpg").exists(), "is in no list"
    monkeypatch.setattr(staging, "_copy", None)
    assert stage(VOC, source, place) == copied


def test_a_changed_source_is_another_copy(source, tmp_path):
    before = stage(VOC, source, tmp_path)
    label = source / "SegmentationClassAug/2007_000000.png"
    os.utime(label, ns=(1, 1))
    after = stage(VOC, source, tmp_path)
    assert after != before and (before / "SegmentationClassAug/2007_000000.png").is_file()


@pytest.mark.parametrize("damage", ["cut off", "gone", "unfinished"])
def test_a_damaged_copy_is_made_anew(damage, source, tmp_path):
    copied = stage(VOC, source, tmp_path / "node")
    file = copied / "JPEGImages/2007_000002.jpg"
    whole = file.read_bytes()
    if damage == "cut off":
        file.write_bytes(whole[:50])
    else:
        (file if damage == "gone" else copied / staging.READY).unlink()
    assert stage(VOC, source, tmp_path / "node") == copied
    assert file.read_bytes() == whole and (copied / staging.READY).is_file()


def test_too_little_room_is_one_line_before_anything_is_copied(source, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(2**31, 2**31, 2**20 // 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(KdsegError, match=r"^--stage .*: has 0 MiB free, the dataset needs 1 MiB$"):
        stage(VOC, source, tmp_path / "node")
    assert [path.suffix for path in (tmp_path / "node").iterdir()] == [".lock"]


def test_a_copy_that_fails_leaves_nothing(source, tmp_path, monkeypatch):
    digests = iter(["one", "one", "one", "another"])
    monkeypatch.setattr(staging, "file_sha256", lambda _: next(digests))
    with pytest.raises(KdsegError, match=r"--stage: .* is not what .* is; is the disk damaged\?"):
        stage(VOC, source, tmp_path / "node")
    assert [path.suffix for path in (tmp_path / "node").iterdir()] == [".lock"]


def test_an_incomplete_source_and_a_place_that_is_no_folder_are_one_line(source, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(KdsegError, match="file: cannot be written"):
        stage(VOC, source, tmp_path / "file")
    shutil.rmtree(source / "SegmentationClassAug")
    with pytest.raises(KdsegError, match="SegmentationClassAug is missing or empty"):
        stage(VOC, source, tmp_path / "node")
