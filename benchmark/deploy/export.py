"""A finished student as config and checkpoint that mmseg reads without our code."""

from __future__ import annotations

from pathlib import Path

from benchmark.core.errors import KdsegError
from benchmark.core.files import make_folder, write_bytes
from benchmark.deploy.load import read_run
from benchmark.deploy.mmseg_config import config_text
from benchmark.models import checkpoints
from benchmark.models.build import build_network
from benchmark.records.record import read_record
from benchmark.spec import definitions


def export_student(folder: Path, out: Path, best: bool = False) -> tuple[Path, Path]:
    """Write a finished run's student as config and checkpoint that mmseg reads without our code.

    Args:
        folder: the run directory.
        out: where to write.
        best: the weights of the best validation instead of the last iteration's.

    Raises:
        KdsegError: the run is not finished, diverged, lacks the file, or its weights are not those of its record.
    """
    run = read_run(folder)
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
        "run": run.id,
        "dataset": run.dataset,
        "protocol": run.protocol,
        "model": run.model,
        "method": run.method.variant,
        "seed": run.seed,
        "iteration": chosen.iteration if chosen else record.iterations,
        "mIoU": chosen.miou if chosen else None,
        "val_batch": protocol.val_batch,
    }
    meta = {"classes": list(dataset.classes), "palette": [list(colour) for colour in dataset.palette]}
    name = f"{run.model}_{run.dataset}_{run.method.name}_{run.id[:8]}" + ("_best" if best else "")
    paths = out / f"{name}.py", out / f"{name}.pth"
    make_folder(out)
    content = {"meta": {"dataset_meta": meta, "kdseg": about}, "state_dict": student.state_dict()}
    checkpoints.save(paths[1], content)
    write_bytes(paths[0], config_text(run.model, dataset, protocol.normalisation, about).encode())
    return paths
