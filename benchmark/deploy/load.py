"""A checkpoint in its network, whoever wrote it. Nothing in a checkpoint is ever run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmark.core.errors import KdsegError
from benchmark.core.schema import parse, read_json
from benchmark.deploy.mmseg_config import Deployed, of_config, of_model
from benchmark.models import checkpoints
from benchmark.spec import definitions
from benchmark.spec.definitions import Dataset, definition_hash
from benchmark.spec.networks import network
from benchmark.spec.runs import Run


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


def find_run(name: str, work_dir: Path) -> Path:
    """The directory of a run that is named by id or by its folder."""
    for folder in (Path(name), work_dir / "runs" / name):
        if (folder / "run.json").is_file():
            return folder
    raise KdsegError(f"{name}: neither a run of {work_dir} nor a run directory; `kdseg status` lists the runs")


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
    if choice.model is not None and choice.protocol is not None:
        deployed = _of_ours(choice.model, choice.protocol, content, expected)
    elif choice.config is not None:
        deployed = of_config(choice.config, trusted=True)
    elif isinstance(beside := _beside(file), Run):
        deployed = _of_ours(beside.model, beside.protocol, content, expected)
        deployed.dataset = beside.dataset
    else:
        deployed = of_config(beside, trusted=False)
    expected = expected or (definitions.dataset(deployed.dataset) if deployed.dataset else None)
    if expected is not None and len(expected.classes) != deployed.classes:
        raise KdsegError(
            f"{file}: tells {deployed.classes} classes apart, dataset {expected.name} has {len(expected.classes)}"
        )
    checkpoints.load_weights(deployed.network, file)
    classes, palette = _dataset_meta(content)
    return Loaded(file, deployed, classes, palette)


def read_run(folder: Path) -> Run:
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


def _checkpoint_file(path: Path) -> Path:
    if not path.is_dir():
        if not path.is_file():
            raise KdsegError(f"{path}: no such checkpoint or folder")
        return path
    if (path / "run.json").is_file():
        if not (path / "student.pth").is_file():
            raise KdsegError(f"{path}: has no student.pth, the run is not finished (or diverged)")
        return path / "student.pth"
    files = sorted(path.glob("*.pth"))
    if len(files) != 1:
        raise KdsegError(f"{path}: holds {len(files)} .pth files, not one; name the checkpoint itself")
    return files[0]


def _check_choice(choice: NetworkChoice) -> None:
    if choice.config is not None and choice.model is not None:
        raise KdsegError("--config and --model: both name the network; leave one out")
    if choice.model is not None and choice.protocol is None:
        raise KdsegError(f"--model {choice.model}: needs --protocol too, which says how its pixels were normalised")
    if choice.protocol is not None and choice.model is None:
        raise KdsegError("--protocol: goes with --model only; leave it out or name the network")


def _beside(file: Path) -> Path | Run:
    """The config or the run that lies beside a checkpoint."""
    if (file.parent / "run.json").is_file():
        return read_run(file.parent)
    for config in (file.with_suffix(".py"), file.with_name("config.py")):
        if config.is_file():
            return config
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
    dataset_meta = meta.get("dataset_meta")
    dataset_meta = dataset_meta if isinstance(dataset_meta, dict) else {}
    # mmseg 1.x has them in `dataset_meta`; 0.x, in capitals, beside it.
    classes = dataset_meta.get("classes", meta.get("CLASSES"))
    palette = dataset_meta.get("palette", meta.get("PALETTE"))
    try:
        names = tuple(str(name) for name in classes) if classes else None
        colours = tuple(tuple(np.array(colour, np.uint8).tolist()) for colour in palette) if palette else None
    except (TypeError, ValueError, OverflowError):
        return None, None
    return names, colours if colours and all(len(colour) == 3 for colour in colours) else None
