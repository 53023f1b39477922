"""The teacher gate: how good the teacher is here, beside what was published, before anybody learns from it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch

from benchmark.core.errors import KdsegError
from benchmark.core.files import make_folder, write_json
from benchmark.core.schema import Frozen, content_hash, parse, read_json
from benchmark.data.datasets import SeededDataset
from benchmark.records.areas import scores
from benchmark.records.record import TeacherCheck
from benchmark.records.run_directory import RunDirectory
from benchmark.runtime import distributed
from benchmark.spec.definitions import Protocol
from benchmark.spec.runs import Job, Run, TeacherSource
from benchmark.spec.tuning import tuning
from benchmark.training.evaluation import Evaluated, evaluate
from benchmark.training.teacher import Teacher

_log = logging.getLogger(__name__)

MARGIN = 0.5
"""Points of mIoU that ours may differ from the published one."""


class Measured(Frozen):
    """What the cache holds: a checkpoint's mIoU in percent, and what it was measured on."""

    teacher: str
    dataset: str
    protocol: str
    images: str
    miou: float


def check_teacher(
    job: Job,
    run: Run,
    protocol: Protocol,
    teacher: Teacher,
    data: SeededDataset,
    device: torch.device,
    beat: Callable[[], None] = lambda: None,
) -> TeacherCheck | None:
    """The teacher's mIoU on the validation images, and the published one where the job names it.

    A run's is in its record. A checkpoint is measured, once per work directory, dataset and protocol. Tuning runs look
    at no validation image, so for them nothing is measured (None).

    Args:
        job: has the published values, and says whether a difference ends it.
        run: one that learns from the teacher; `protocol` is its.
        teacher: as the job loaded it.
        data: the validation images.
        device: where the teacher is.
        beat: called after each batch.

    Raises:
        KdsegError: the difference is more than `MARGIN` and the job is strict about it.
    """
    if run.teacher is None or tuning(run):
        return None
    published = job.teacher_miou.get(run.teacher.id)
    if run.teacher.kind == "run":
        miou = _recorded(job, run.teacher)
    else:
        miou = _measured(job, run, protocol, teacher, data, device, beat)
    off = published is not None and abs(miou - published) > MARGIN
    if off:
        message = (
            f"teacher {run.teacher.model}: has mIoU {miou:.2f} here, published {published:.2f}; more than {MARGIN} "
            "points apart means another network, other pixels, labels or evaluation"
        )
        if job.execution.strict_teacher:
            raise KdsegError(f"{message} (--strict-teacher)")
        _log.warning("warning: %s; the records are marked", message)
    return TeacherCheck(miou=miou, published=published, off=off)


def _recorded(job: Job, source: TeacherSource) -> float:
    record = RunDirectory(Path(job.work_dir), source.id).record()
    if record is None or record.result is None:
        raise KdsegError(f"teacher {source.model}: its run {source.id} has no result; train it first")
    return record.result.last.miou


def _measured(
    job: Job,
    run: Run,
    protocol: Protocol,
    teacher: Teacher,
    data: SeededDataset,
    device: torch.device,
    beat: Callable[[], None],
) -> float:
    key = {"teacher": teacher.sha256, "dataset": run.dataset_hash, "protocol": run.protocol_hash}
    key["images"] = data.list_hash()
    folder = Path(job.work_dir) / "teachers"
    file = folder / f"{content_hash([key, run.teacher and run.teacher.model])}.json"
    if distributed.first(file.is_file()):
        return parse(Measured, read_json(file), str(file)).miou
    member = {"": Evaluated(teacher.network, teacher.normalisation, protocol.val_parts)}
    classes = len(data.definition.classes)
    miou = scores(evaluate(member, data, classes, protocol.val_batch, job.execution.workers, device, beat)[""]).miou
    if distributed.rank() == 0:
        make_folder(folder)
        write_json(file, Measured(**key, miou=miou).model_dump(mode="json"))
    return miou
