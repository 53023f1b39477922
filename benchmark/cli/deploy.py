"""Commands for finished networks: `export`, `eval`, `predict`."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from typing import Any

from benchmark.cli.output import print_table, say_where
from benchmark.core.errors import KdsegError
from benchmark.spec import definitions
from benchmark.spec.runs import Execution, Job


def export(arguments: Namespace) -> int:
    """`kdseg export`: a finished student as an mmseg config and checkpoint."""
    from benchmark.deploy.export import export_student
    from benchmark.deploy.load import find_run

    config, checkpoint = export_student(find_run(arguments.run, arguments.work_dir), arguments.out, arguments.best)
    say_where({"config": [config], "checkpoint": [checkpoint]})
    return 0


def score(arguments: Namespace) -> int:
    """`kdseg eval`: the scores of a checkpoint on a split."""
    from benchmark.deploy.score import in_percent, score_network

    dataset, loaded = _deployed(arguments)
    found = in_percent(
        loaded,
        score_network(loaded, dataset, arguments.split, arguments.data_root, device_of(arguments)),
        arguments.split,
    )
    if arguments.format == "json":
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return 0
    rows = [{"class": key, "IoU": _percent(value)} for key, value in found["IoU"].items()]
    print_table(f"{loaded.file.name} on {dataset.name} {arguments.split}, {found['images']} images", rows)
    print("  ".join(f"{key} {_percent(found[key])}" for key in ("mIoU", "mAcc", "aAcc")))
    return 0


def predict(arguments: Namespace) -> int:
    """`kdseg predict`: a PNG for every image of a folder; 1 if an image could not be read."""
    from benchmark.deploy.predict import predict_folder

    dataset, loaded = _deployed(arguments, required=False)
    palette = dataset.palette if dataset else loaded.palette
    written, faults = predict_folder(
        loaded, arguments.images, arguments.out, arguments.format, palette, device_of(arguments)
    )
    for fault in faults:
        print(f"left out: {fault}", file=sys.stderr)
    print(f"{written} images predicted" + (f", {len(faults)} left out" if faults else ""))
    say_where({"predictions": [arguments.out]})
    return 1 if faults else 0


def device_of(arguments: Namespace) -> Any:
    """The device that `--device` and `--threads` choose; sets the threads of this process."""
    from benchmark.runtime.device import prepare_process

    execution = Execution(device=arguments.device, threads=arguments.threads)
    return prepare_process(Job(runs=(), work_dir="", execution=execution))


def _deployed(arguments: Namespace, required: bool = True) -> Any:
    """The data set that is meant (None: nobody says) and the loaded checkpoint of `eval` and `predict`."""
    from benchmark.deploy.load import NetworkChoice, load_network

    dataset = definitions.dataset(arguments.dataset) if arguments.dataset else None
    choice = NetworkChoice(arguments.config, arguments.model, arguments.protocol)
    loaded = load_network(arguments.checkpoint, choice, dataset)
    if dataset is None and loaded.deployed.dataset:
        dataset = definitions.dataset(loaded.deployed.dataset)
    if dataset is None and required:
        raise KdsegError(f"{loaded.file}: does not say what it was trained on; pass --dataset NAME")
    if dataset and loaded.classes and not _same_names(dataset.classes, loaded.classes):
        print(f"note: {loaded.file.name} was trained on other classes than those of {dataset.name}", file=sys.stderr)
    return dataset, loaded


def _same_names(ours: Any, theirs: Any) -> bool:
    def plain(names: Any) -> list[str]:
        return ["".join(filter(str.isalnum, name.lower())) for name in names]

    return plain(ours) == plain(theirs)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def import_checkpoint(arguments: Namespace) -> int:
    """`kdseg import-checkpoint`: a checkpoint of another codebase under our names, strictly."""
    from benchmark.models import checkpoints
    from benchmark.models.convert import import_checkpoint as read
    from benchmark.spec.networks import flavoured, network

    name = network(flavoured(arguments.arch, arguments.flavour)).name
    state, meta = read(arguments.file, name, arguments.classes)
    checkpoints.save(arguments.out, {"meta": meta, "state_dict": state})
    part = "backbone" if "part" in meta else f"network for {meta['classes']} classes"
    print(f"{arguments.out}: {name}, {part}, {len(state)} tensors; source sha256 {meta['source_sha256']}")
    use = "--weights or a sweep's weights:" if "part" in meta else f"--teacher FILE --teacher-model {name}"
    print(f"use it as {use}")
    return 0
