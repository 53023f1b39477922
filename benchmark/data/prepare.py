"""Makes the label files and lists that a download lacks. Nothing that is there is ever overwritten."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from benchmark.core.errors import KdsegError
from benchmark.core.files import make_folder, write_bytes
from benchmark.data.label_pictures import label_png
from benchmark.data.layouts import find_root, read_names
from benchmark.data.loading import read_labels
from benchmark.spec.definitions import IGNORE, Dataset, names_hash

LABEL_IDS, TRAIN_IDS = "labelIds", "labelTrainIds"
SBD_FOLDERS = (".", "dataset", "benchmark_RELEASE/dataset")
"""Where SBD's folders are below the one that is given."""
NEAR_VOC = ("../VOCaug", "..", "../..")
"""Where SBD is looked for beside VOC2012 if none is given."""
SBD_URL = "http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz"


def prepare(definition: Dataset, root: Path | None, sbd: Path | None = None, workers: int = 1) -> list[str]:
    """Make what is missing of a dataset, and say in a line each what was made.

    Args:
        definition: Cityscapes or VOC; the others need nothing.
        root: the data root.
        sbd: for VOC, the folder of SBD; None: where it usually lies beside VOC2012.
        workers: files that are made at the same time.

    Raises:
        KdsegError: the sources are missing or damaged, or what is there already contradicts them.
    """
    folder = find_root(definition, root)
    if definition.label_ids:
        return _label_train_ids(definition, folder, workers)
    if definition.own_labels:
        return _voc_aug(definition, folder, sbd, workers)
    raise KdsegError(f"dataset {definition.name}: needs no preparation; it is read as it is distributed")


def to_train_ids(labels: np.ndarray, label_ids: tuple[int, ...]) -> np.ndarray:
    """Labels (H, W), uint8, in the numbers that networks learn: 0, 1, ... for `label_ids` in order, void for others."""
    table = np.full(256, IGNORE, np.uint8)
    table[list(label_ids)] = np.arange(len(label_ids))
    return table[labels]


def read_sbd(path: Path) -> np.ndarray:
    """The class labels (H, W), uint8, in a file of SBD's folder `cls`.

    Raises:
        KdsegError: it is missing, damaged, or holds something else.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise KdsegError(f"{path}: is missing; SBD is incomplete, unpack {SBD_URL} again") from None
    except OSError as error:
        raise KdsegError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        labels = loadmat(io.BytesIO(content))["GTcls"][0, 0]["Segmentation"]
    except Exception as error:  # scipy's reader raises anything on damaged files
        raise KdsegError(f"{path}: is no label file of SBD (GTcls.Segmentation): {type(error).__name__}") from None
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise KdsegError(f"{path}: GTcls.Segmentation is {labels.dtype} {labels.shape}, not 8-bit labels (H, W)")
    return labels


def _label_train_ids(definition: Dataset, root: Path, workers: int) -> list[str]:
    lines = []
    for split, layout in definition.splits.items():
        sources = sorted((root / layout.labels).glob("*/*" + definition.label_suffix.replace(TRAIN_IDS, LABEL_IDS)))
        if not sources:
            raise KdsegError(f"data root {root}: {layout.labels} holds no {LABEL_IDS} to prepare; unpack gtFine there")
        targets = [source.with_name(source.name.replace(LABEL_IDS, TRAIN_IDS)) for source in sources]

        def make(source: Path) -> bytes:
            return label_png(to_train_ids(read_labels(source), definition.label_ids))

        lines.append(f"{split} {TRAIN_IDS}: {_write(zip(targets, sources, strict=True), make, workers)}")
    return lines


def _voc_aug(definition: Dataset, root: Path, sbd: Path | None, workers: int) -> list[str]:
    """VOC's own labels where it has some, else SBD's; the list names all that are not in val."""
    train, val = definition.splits["train"], definition.splits["val"]
    assert train.names and val.names, "a data set with `own_labels` has lists"
    own = {name: root / definition.own_labels / f"{name}.png" for name in _voc_names(root, train.names, val.names)}
    validation = set(read_names(root, val.names))
    labels = root / train.labels
    have = {path.stem for path in labels.glob("*.png")} if labels.is_dir() else set()
    source = _find_sbd(root, sbd)
    sbd_names = {name for file in ("train.txt", "val.txt") for name in read_names(source, file)} if source else have
    names = sorted((sbd_names | set(own)) - validation)
    if len(names) != train.count or (train.official and names_hash(names) != train.official):
        if source is None:
            raise KdsegError(
                f"data root {root}: labels of SBD are missing; unpack {SBD_URL} and pass its folder as --sbd DIR"
            )
        raise KdsegError(
            f"{source}: train.txt, val.txt and VOC's train.txt name {len(names)} images outside of VOC's val.txt that "
            f"are not the {train.count} official ones; unpack {SBD_URL} again"
        )
    listed = root / train.names
    if listed.exists() and set(read_names(root, train.names)) != set(names):
        raise KdsegError(f"{listed}: is there and names other images than the {train.count} official ones; remove it")

    def make(name: str) -> bytes:
        if name in own:
            return _bytes(own[name])
        assert source is not None, "without it all names are in `own` or there already"
        return label_png(read_sbd(source / "cls" / f"{name}.mat"), definition.palette)

    wanted = [*names, *sorted(validation)]
    count = _write([(labels / f"{name}.png", name) for name in wanted], make, workers)
    if not listed.exists():
        write_bytes(listed, "".join(f"{name}\n" for name in names).encode())
    return [f"{train.labels}: {count}", f"{train.names}: {len(names)} names"]


def _voc_names(root: Path, trainaug: str, val: str) -> list[str]:
    """The names that VOC itself has labels for."""
    return [name for file in (str(Path(trainaug).with_name("train.txt")), val) for name in read_names(root, file)]


def _find_sbd(root: Path, sbd: Path | None) -> Path | None:
    """SBD's folder of `cls`, `train.txt` and `val.txt`; None: there is none where it usually lies."""
    bases = [sbd] if sbd else [root / base for base in NEAR_VOC]
    folders = [base / inner for base in bases for inner in SBD_FOLDERS]
    match = next((folder for folder in folders if (folder / "cls").is_dir()), None)
    if sbd and match is None:
        raise KdsegError(f"--sbd {sbd}: holds no folder cls with .mat files; unpack {SBD_URL} and pass its folder")
    return match


def _write(targets: Iterable[tuple[Path, object]], make: Callable[..., bytes], workers: int) -> str:
    """Write each target that is missing; says how many were made, and how many were there."""
    pairs = list(targets)
    missing = [(target, source) for target, source in pairs if not target.exists()]
    for folder in {target.parent for target, _ in missing}:
        make_folder(folder)
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(lambda pair: write_bytes(pair[0], make(pair[1])), missing):
            pass
    return f"{len(missing)} made, {len(pairs) - len(missing)} were there"


def _bytes(path: Path) -> bytes:
    read_labels(path)
    return path.read_bytes()
