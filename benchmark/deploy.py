"""What happens to networks after training: export to plain mmseg files, scores of any checkpoint, predicted PNGs."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image

from benchmark import definitions
from benchmark.definitions import Dataset, definition_hash
from benchmark.errors import KdsegError
from benchmark.evaluation import Evaluated, count_areas, evaluate
from benchmark.files import make_folder, write_bytes
from benchmark.frozen import parse, read_json
from benchmark.metrics import AreaScores, scores
from benchmark.networks import network
from benchmark.record import read_record
from benchmark.runs import Run
from benchmark.toolbox import checkpoints
from benchmark.toolbox.data import val_batches, val_dataset
from benchmark.toolbox.deployment import Deployed, config_text, of_config, of_model
from benchmark.toolbox.loading import read_image
from benchmark.toolbox.networks import build_network

Format = Literal["labels", "palette", "cityscapes"]
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The labelIds of Cityscapes' 19 training classes: what its server expects."""


class NetworkChoice(NamedTuple):
    """How a user says what network a checkpoint holds; nothing said: what lies beside the checkpoint."""

    config: Path | None = None
    model: str | None = None
    protocol: str | None = None


class Loaded(NamedTuple):
    """A checkpoint in its network; names and palette of its classes, where the file has them."""

    file: Path
    deployed: Deployed
    classes: tuple[str, ...] | None
    palette: tuple[tuple[int, int, int], ...] | None


class Evaluation(NamedTuple):
    """Scores of a checkpoint on a split, and the areas (images, 4, classes) that they follow from."""

    dataset: Dataset
    names: list[str]
    areas: np.ndarray
    scores: AreaScores


def find_run(given: str, work_dir: Path) -> Path:
    """The directory of a run that is named by id or by its folder."""
    for folder in (Path(given), work_dir / "runs" / given):
        if (folder / "run.json").is_file():
            return folder
    raise KdsegError(f"{given}: neither a run of {work_dir} nor a run directory; `kdseg status` lists the runs")


def export(folder: Path, out: Path, best: bool = False) -> tuple[Path, Path]:
    """Write a finished run's student as config and checkpoint that mmseg reads without our code.

    Args:
        folder: the run directory.
        out: where to write.
        best: the weights of the best validation instead of the last iteration's.

    Raises:
        KdsegError: the run is not finished, diverged, lacks the file, or its weights are not those of its record.
    """
    run = _run(folder)
    if not (folder / "record.json").is_file():
        raise KdsegError(f"{folder}: is not finished, it has no record yet; the command that started it goes on")
    record = read_record(folder / "record.json")
    if record.divergence:
        raise KdsegError(f"{folder}: diverged at iteration {record.divergence.iteration}; there is no student")
    file = folder / ("best.pth" if best else "student.pth")
    if best and not file.is_file():
        raise KdsegError(f"{file}: is gone (`kdseg clean` removes it); leave --best out for the last iteration's")
    dataset = definitions.dataset(run.dataset)
    student = build_network(run.model, len(dataset.classes))
    checkpoints.load_weights(student, file)
    if not best and checkpoints.weights_hash(student) != record.student_sha256:
        raise KdsegError(f"{file}: its weights are not those that record.json names; it was changed")
    protocol = definitions.protocol(run.protocol)
    chosen = record.result and (record.result.best if best else record.result.last)
    about = {
        "run": run.id, "dataset": run.dataset, "protocol": run.protocol, "model": run.model,
        "method": run.method.variant, "seed": run.seed, "iteration": chosen.iteration if chosen else record.iterations,
        "mIoU": chosen.miou if chosen else None, "val_batch": protocol.val_batch,
    }  # fmt: skip
    meta = {"classes": list(dataset.classes), "palette": [list(colour) for colour in dataset.palette]}
    name = f"{run.model}_{run.dataset}_{run.method.name}_{run.id[:8]}" + ("_best" if best else "")
    paths = out / f"{name}.py", out / f"{name}.pth"
    make_folder(out)
    content = {"meta": {"dataset_meta": meta, "kdseg": about}, "state_dict": student.state_dict()}
    checkpoints.save(paths[1], content)
    write_bytes(paths[0], config_text(run.model, dataset, protocol.normalisation, about).encode())
    return paths


def load_network(checkpoint: Path, choice: NetworkChoice, expected: Dataset | None = None) -> Loaded:
    """A checkpoint in the network that `choice` names, or that lies beside it. Nothing in the checkpoint is ever run.

    Args:
        checkpoint: the file, or a folder that holds it: a run directory, or one that `export` wrote.
        choice: what the user says about the network.
        expected: the data set whose classes it must have; None for any.

    Raises:
        KdsegError: no such file, not a harmless checkpoint, no network known for it, another class count, misfit.
    """
    file = _checkpoint_file(checkpoint)
    content = checkpoints.load(file)
    _check_choice(choice)
    config, run = _beside(file) if choice.config is None and choice.model is None else (None, None)
    if choice.model is not None and choice.protocol is not None:
        deployed = _of_ours(choice.model, choice.protocol, content, expected)
    elif run is not None:
        deployed = _of_ours(run.model, run.protocol, content, expected)
        deployed.dataset = run.dataset
    else:
        deployed = of_config(choice.config or config, trusted=choice.config is not None)
    expected = expected or (definitions.dataset(deployed.dataset) if deployed.dataset else None)
    if expected is not None and len(expected.classes) != deployed.classes:
        raise KdsegError(
            f"{file}: tells {deployed.classes} classes apart, dataset {expected.name} has {len(expected.classes)}"
        )
    checkpoints.load_weights(deployed.network, file)
    classes, palette = _dataset_meta(content)
    return Loaded(file, deployed, classes, palette)


def score(
    loaded: Loaded, dataset: Dataset, split: Literal["train", "val"], data_root: Path | None, device: torch.device
) -> Evaluation:
    """Scores of a network on a split, by the trainer's own evaluation where its pixels are only normalised.

    Where its config resizes or pads test pictures, mmseg predicts picture by picture, back at their own size.
    """
    deployed, data = loaded.deployed.to(device), val_dataset(dataset, data_root, split)
    if deployed.normalisation is not None:
        member = {"": Evaluated(deployed.network, deployed.normalisation)}
        areas = evaluate(member, data, deployed.classes, deployed.batch, 0, device)[""]
    else:
        areas = np.zeros((len(data), 4, deployed.classes), np.int64)
        for (index,), raw in val_batches(data, 1, 0):
            prediction = deployed.labels(raw["inputs"][0].permute(1, 2, 0).numpy())
            label = raw["data_samples"][0].gt_sem_seg.data.squeeze(0).to(device)
            areas[index] = count_areas(prediction, label, deployed.classes).cpu().numpy()
    return Evaluation(dataset, data.names(), areas, scores(areas))


def predict_folder(
    loaded: Loaded, images: Path, out: Path, kind: Format, palette: Any, device: torch.device
) -> tuple[int, list[KdsegError]]:
    """Write a PNG for every picture below `images`, under the same name below `out`.

    Returns:
        How many were written, and the errors of those that could not be read.

    Raises:
        KdsegError: nothing to do, names that collide, or classes that the format cannot hold.
    """
    _check_format(loaded, kind, palette)
    targets = _targets(images, out)
    deployed, faults = loaded.deployed.to(device), []
    for file, target in targets.items():
        try:
            image = read_image(file)
        except KdsegError as error:
            faults.append(error)
            continue
        labels = deployed.labels(image).cpu().numpy().astype(np.uint8)
        make_folder(target.parent)
        write_bytes(target, png(labels, kind, palette or ()))
    return len(targets) - len(faults), faults


def png(labels: np.ndarray, kind: Format, palette: Any) -> bytes:
    """A PNG file of labels (H, W), uint8: as train ids, the same with colours (mode P), or as Cityscapes' labelIds."""
    if kind == "cityscapes":
        labels = np.array(CITYSCAPES_IDS, np.uint8)[labels]
    picture = Image.fromarray(labels)
    if kind == "palette":
        colours = [value for colour in palette for value in colour]
        picture.putpalette(colours + [0] * (768 - len(colours)))  # turns mode L into P; the indices stay
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def report(loaded: Loaded, evaluation: Evaluation, split: str) -> dict[str, Any]:
    """Scores in percent as plain data; a class without a pixel in truth and prediction has no IoU."""
    found, dataset = evaluation.scores, evaluation.dataset
    iou = {name: _number(value) for name, value in zip(dataset.classes, found.iou, strict=True)}
    return {
        "checkpoint": str(loaded.file), "dataset": dataset.name, "split": split, "images": len(evaluation.names),
        "mIoU": _number(found.miou), "mAcc": _number(found.macc), "aAcc": _number(found.aacc), "IoU": iou,
    }  # fmt: skip


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _run(folder: Path) -> Run:
    """The run of a directory, if the definitions it was made with are still these."""
    run = parse(Run, read_json(folder / "run.json"), str(folder / "run.json"))
    planned = {"data set": run.dataset_hash, "protocol": run.protocol_hash}
    now = {
        "data set": definition_hash(definitions.dataset(run.dataset)),
        "protocol": definition_hash(definitions.protocol(run.protocol)),
    }
    changed = [name for name, before in planned.items() if before != now[name]]
    if changed:
        raise KdsegError(f"{folder}: its {' and '.join(changed)} changed since; use the version that trained it")
    return run


def _checkpoint_file(given: Path) -> Path:
    if not given.is_dir():
        if not given.is_file():
            raise KdsegError(f"{given}: no such checkpoint or folder")
        return given
    if (given / "run.json").is_file():
        if not (given / "student.pth").is_file():
            raise KdsegError(f"{given}: has no student.pth, the run is not finished (or diverged)")
        return given / "student.pth"
    files = sorted(given.glob("*.pth"))
    if len(files) != 1:
        raise KdsegError(f"{given}: holds {len(files)} .pth files, not one; name the checkpoint itself")
    return files[0]


def _check_choice(choice: NetworkChoice) -> None:
    if choice.config is not None and choice.model is not None:
        raise KdsegError("--config and --model: both name the network; leave one out")
    if choice.model is not None and choice.protocol is None:
        raise KdsegError(f"--model {choice.model}: needs --protocol too, which says how its pixels were normalised")
    if choice.protocol is not None and choice.model is None:
        raise KdsegError("--protocol: goes with --model only; leave it out or name the network")


def _beside(file: Path) -> tuple[Path | None, Run | None]:
    """The config or the run that lies beside a checkpoint."""
    if (file.parent / "run.json").is_file():
        return None, _run(file.parent)
    for config in (file.with_suffix(".py"), file.with_name("config.py")):
        if config.is_file():
            return config, None
    raise KdsegError(
        f"{file}: of which network? There is no {file.stem}.py, config.py or run.json beside it; "
        "pass --config FILE (an mmseg config), or --model NAME with --protocol NAME"
    )


def _of_ours(model: str, protocol_name: str, content: Any, expected: Dataset | None) -> Deployed:
    """One of our networks, with as many classes as the checkpoint's classifier has (if it has one)."""
    name, protocol = network(model).name, definitions.protocol(protocol_name)
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    classifier = state.get("decode_head.conv_seg.weight") if isinstance(state, Mapping) else None
    classes = len(expected.classes) if expected else 2
    if isinstance(classifier, torch.Tensor) and classifier.ndim == 4:
        classes = classifier.shape[0]
    return of_model(name, classes, protocol.normalisation, protocol.val_batch)


def _dataset_meta(content: Any) -> tuple[tuple[str, ...] | None, tuple[tuple[int, int, int], ...] | None]:
    """Class names and palette in a checkpoint of mmseg 1.x or 0.x; what does not look right is left out."""
    meta = content.get("meta") if isinstance(content, dict) else None
    meta = meta if isinstance(meta, dict) else {}
    found = meta.get("dataset_meta") if isinstance(meta.get("dataset_meta"), dict) else {}
    classes, palette = found.get("classes", meta.get("CLASSES")), found.get("palette", meta.get("PALETTE"))
    try:
        names = tuple(str(name) for name in classes) if classes else None
        colours = tuple(tuple(np.array(colour, np.uint8).tolist()) for colour in palette) if palette else None
    except (TypeError, ValueError, OverflowError):
        return None, None
    return names, colours if colours and all(len(colour) == 3 for colour in colours) else None


def _check_format(loaded: Loaded, kind: Format, palette: Any) -> None:
    classes = loaded.deployed.classes
    if classes > 255:
        raise KdsegError(f"{loaded.file}: tells {classes} classes apart; 8-bit PNGs hold at most 255")
    if kind == "cityscapes" and classes != len(CITYSCAPES_IDS):
        raise KdsegError(f"--format cityscapes: needs Cityscapes' 19 classes; {loaded.file} has {classes}")
    if kind == "palette" and len(palette or ()) != classes:
        raise KdsegError(f"--format palette: {loaded.file} names no colours for {classes} classes; pass --dataset NAME")


def _targets(images: Path, out: Path) -> dict[Path, Path]:
    """Where the PNG of each picture goes; two pictures never share one."""
    if not images.is_dir():
        raise KdsegError(f"--images {images}: no such folder")
    if out.resolve().is_relative_to(images.resolve()):
        raise KdsegError(f"--out {out}: lies in the folder of the images; name another place")
    files = sorted(file for file in images.rglob("*") if file.suffix.lower() in IMAGES and file.is_file())
    if not files:
        raise KdsegError(f"--images {images}: holds no images ({' '.join(IMAGES)})")
    targets: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for file in files:
        target = out / file.relative_to(images).with_suffix(".png")
        if target in taken:
            raise KdsegError(f"{file}: would be written as {target}, as {taken[target]} would; rename one")
        targets[file], taken[target] = target, file
    return targets
