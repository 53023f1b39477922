"""Bad files: each is one line that names it, in the main process, whoever loads it and whenever."""

import io
import itertools
import multiprocessing
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark.core.errors import KdsegError
from benchmark.data.datasets import EndlessSampler, train_batches, train_dataset, val_batches, val_dataset
from benchmark.data.loading import read_image, read_labels
from benchmark.spec import definitions
from tests.trees import tree

RECIPE = definitions.protocol("camvid-small").recipes["cnn"].data.model_copy(update={"crop": (32, 40), "batch": 1})
COPY = "replace it by a good copy"


def _cut(share):
    return lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def _cut_last_byte(path):
    path.write_bytes(path.read_bytes()[:-1])


def _flip_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)


def _write(content):
    return lambda path: path.write_bytes(content)


def _save(values, **how):
    return lambda path: Image.fromarray(values).save(path, **how)


def _pixel(*values):
    """Overwrite the first pixels of a label."""

    def damage(path):
        labels = np.array(Image.open(path))
        labels.ravel()[: len(values)] = values
        Image.fromarray(labels).save(path)

    return damage


def _huge_header(path):
    """A PNG whose (valid) header promises more pixels than any decoder takes."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 0, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(b"\0"), b"IEND"]
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))


def _folder(path):
    path.rename(path.with_suffix(".bak"))
    path.mkdir()


def _remove(path):
    path.unlink()


SIXTEEN = np.full((60, 80), 260, np.uint16)
ONE_NUMBER = "one 8-bit class number a pixel is needed (mode L or P)"
NO_END = "is cut off (its JPEG data have no end)"
PNG_NO_END = "is cut off (its PNG data have no end)"
CHECKSUM = "is corrupt (a PNG checksum is wrong)"
UNKNOWN = "cannot be decoded: no known picture format, or corrupt"
CAMVID = "the labels of camvid are 0 to 10, and 255 for void"

# data set, kind of file, damage, what is said after the file's name
FAULTS = {
    "image empty": ("camvid", "image", _write(b""), f"is empty; {COPY}"),
    "image is text": ("camvid", "image", _write(b"<html>404</html>"), f"{UNKNOWN}; {COPY}"),
    "image vanishes": ("camvid", "image", _remove, "cannot be read: No such file or directory"),
    "image is a folder": ("camvid", "image", _folder, "cannot be read: Is a directory"),
    "JPEG cut to half": ("camvid", "image", _cut(0.5), f"{NO_END}; {COPY}"),
    "JPEG cut in its header": ("camvid", "image", _cut(0.05), f"{NO_END}; {COPY}"),
    "JPEG without its last byte": ("camvid", "image", _cut_last_byte, f"{NO_END}; {COPY}"),
    "JPEG with a broken header": (
        "camvid",
        "image",
        _write(b"\xff\xd8\xff\xe0" * 9 + b"\xff\xd9"),
        f"{UNKNOWN}; {COPY}",
    ),
    "PNG image cut": ("cityscapes", "image", _cut(0.5), f"{PNG_NO_END}; {COPY}"),
    "PNG image without its last byte": ("cityscapes", "image", _cut_last_byte, f"{PNG_NO_END}; {COPY}"),
    "PNG image with a flipped bit": ("cityscapes", "image", _flip_byte, f"{CHECKSUM}; {COPY}"),
    "label empty": ("camvid", "label", _write(b""), f"is empty; {COPY}"),
    "label is noise": ("camvid", "label", _write(bytes(range(7)) * 9), f"{UNKNOWN}; {COPY}"),
    "label vanishes": ("ade20k", "label", _remove, "cannot be read: No such file or directory"),
    "label cut": ("camvid", "label", _cut(0.5), f"{PNG_NO_END}; {COPY}"),
    "label with a flipped bit": ("camvid", "label", _flip_byte, f"{CHECKSUM}; {COPY}"),
    "label of 16 bits": (
        "camvid",
        "label",
        _save(SIXTEEN),
        f"holds 16-bit numbers (mode I;16); {ONE_NUMBER}",
    ),
    "label of colours": (
        "camvid",
        "label",
        _save(np.zeros((60, 80, 3), np.uint8)),
        f"holds colours (mode RGB); {ONE_NUMBER}",
    ),
    "label of colours and alpha": (
        "camvid",
        "label",
        _save(np.zeros((60, 80, 4), np.uint8)),
        f"holds colours (mode RGBA); {ONE_NUMBER}",
    ),
    "label of grey and alpha": (
        "camvid",
        "label",
        _save(np.zeros((60, 80, 2), np.uint8)),
        f"holds other values (mode LA); {ONE_NUMBER}",
    ),
    "label beyond the last class": ("camvid", "label", _pixel(11), f"holds 11; {CAMVID}"),
    "label with many strays": (
        "camvid",
        "label",
        _pixel(11, 12, 13, 14, 15, 16, 254),
        f"holds 11, 12, 13, 14, 15, …; {CAMVID}",
    ),
    "ade20k beyond 150": (
        "ade20k",
        "label",
        _pixel(151, 254),
        "holds 151, 254; the labels of ade20k are 0 to 150, and 255 for void",
    ),
    "cityscapes labelIds in the place of labelTrainIds": (
        "cityscapes",
        "label",
        _pixel(33, 7),
        "holds 33; the labels of cityscapes are 0 to 18, and 255 for void",
    ),
    "voc palette beyond 20": (
        "voc",
        "label",
        lambda path: Image.fromarray(np.full((60, 80), 21, np.uint8)).convert("P").save(path),
        "holds 21; the labels of voc are 0 to 20, and 255 for void",
    ),
    "label larger than its image": (
        "camvid",
        "label",
        _save(np.zeros((61, 80), np.uint8)),
        "is 80x61 pixels, but its image {image} is 80x60",
    ),
    "label turned": (
        "camvid",
        "label",
        _save(np.zeros((80, 60), np.uint8)),
        "is 60x80 pixels, but its image {image} is 80x60",
    ),
    "label of too many pixels": (
        "camvid",
        "label",
        _huge_header,
        "cannot be decoded: Image size (4611686014132420609 pixels) exceeds limit of 178956970 pixels, could be "
        f"decompression bomb DOS attack.; {COPY}",
    ),
    "image of too many pixels": ("cityscapes", "image", _huge_header, f"{UNKNOWN}; {COPY}"),
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("case", FAULTS)
def test_a_bad_file_is_one_line_in_mid_epoch(case, workers, tmp_path, capfd):
    name, kind, damage, said = FAULTS[case]
    data = train_dataset(definitions.dataset(name), RECIPE, tree(name, tmp_path), 0)
    third = next(itertools.islice(EndlessSampler(len(data), data.seed), 2, None))[1]
    image, label = (Path(data.get_data_info(third)[key]) for key in ("img_path", "seg_map_path"))
    victim = {"image": image, "label": label}[kind]
    damage(victim)
    batches = train_batches(data, 1, 0, workers)
    next(batches), next(batches)
    with pytest.raises(KdsegError) as error:
        next(batches)
    assert str(error.value) == f"{kind} {victim}: {said.format(image=image)}"
    assert multiprocessing.active_children() == []
    said_by_us = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("libpng")]
    assert said_by_us == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_is_one_line_in_evaluation(workers, tmp_path):
    data = val_dataset(definitions.dataset("camvid"), tree("camvid", tmp_path))
    victim = tmp_path / "labels/val/0016E5_000001.png"
    _cut(0.5)(victim)
    batches = val_batches(data, 1, workers)
    assert next(batches)[0] == [0]
    with pytest.raises(KdsegError) as error:
        next(batches)
    assert str(error.value) == f"label {victim}: {PNG_NO_END}; {COPY}"
    assert multiprocessing.active_children() == []


def test_a_worker_that_dies_is_one_line_where_its_batch_is_awaited(tmp_path):
    data = train_dataset(definitions.dataset("camvid"), RECIPE, tree("camvid", tmp_path), 0)
    handler = signal.getsignal(signal.SIGCHLD)
    batches = train_batches(data, 1, 0, 2)
    next(batches)
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    with pytest.raises(KdsegError, match="^data loading: a worker process was killed or ran out of memory; use fewer"):
        list(batches)
    assert signal.getsignal(signal.SIGCHLD) is handler
    assert multiprocessing.active_children() == []


def test_training_on_a_bad_file_prints_one_line(tmp_path):
    root = tree("camvid", tmp_path / "data")
    for victim in (root / "labels/train").iterdir():
        _pixel(77)(victim)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmark.cli",
            "train",
            "--dataset",
            "camvid",
            "--protocol",
            "camvid-small",
            "--model",
            "deeplabv3_tiny",
            "--method",
            "student",
            "--seed",
            "0",
            "--data-root",
            str(root),
            "--workers",
            "2",
            "--allow-off-protocol",
            "--work-dir",
            str(tmp_path / "work"),
            "--cfg-options",
            "data.crop=[32, 40]",
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    faults = [line for line in done.stderr.splitlines() if "error" in line]
    assert done.returncode != 0 and "Traceback" not in done.stdout + done.stderr
    assert len(faults) == 1 and faults[0].endswith(f": holds 77; {CAMVID}")


def test_good_files_of_every_kind_pass(tmp_path):
    """Palette, 4-bit palette and 1-bit labels are indices; a thumbnail or junk in a JPEG is no cut."""
    labels = np.random.default_rng(0).integers(0, 2, (60, 80), np.uint8)
    palette = Image.fromarray(labels)
    palette.putpalette([9, 9, 9, 200, 10, 10])
    pictures = {"L": Image.fromarray(labels), "P": palette, "1": Image.fromarray(labels.astype(bool))}
    for mode, picture in pictures.items():
        for bits in {"P": (8, 4, 1)}.get(mode, (None,)):
            picture.save(tmp_path / "label.png", **({"bits": bits} if bits else {}))
            assert Image.open(tmp_path / "label.png").mode == mode
            assert np.array_equal(read_labels(tmp_path / "label.png"), labels)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    thumbnail = io.BytesIO()
    noise.resize((8, 6)).save(thumbnail, "JPEG")
    path = tmp_path / "image.jpg"
    noise.save(path, progressive=True, exif=b"Exif\0\0" + thumbnail.getvalue())
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    assert read_image(path).shape == (60, 80, 3)
    _cut(0.8)(path)
    with pytest.raises(KdsegError, match="is cut off"):
        read_image(path)


@pytest.mark.parametrize("kind", ["image", "label"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_no_damage_raises_anything_but_one_line(kind, suffix, tmp_path):
    read = {"image": read_image, "label": read_labels}[kind]
    rng = np.random.default_rng(0)
    path = tmp_path / f"file{suffix}"
    Image.fromarray(rng.integers(0, 9, (20, 30), np.uint8)).save(path)
    whole = path.read_bytes()
    for trial in range(200):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 1 + trial % 8):
            data[place] = rng.integers(256)
        path.write_bytes(data[: rng.integers(len(data))] if trial % 3 == 0 else data)
        said = f"{kind} {path}: "
        try:
            read(path)
        except KdsegError as error:
            said = str(error)
        assert said.startswith(f"{kind} {path}: ") and "\n" not in said
