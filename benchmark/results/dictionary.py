"""All runs as one tidy table: a CSV with one row a run, and a data dictionary beside it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from benchmark.core.errors import KdsegError
from benchmark.core.files import make_folder, write_bytes
from benchmark.results.frame import COLUMNS
from benchmark.results.results import Results
from benchmark.results.stats import is_hole

TEXTS = {
    "id": "run id: a hash of all that decides its numbers",
    "outcome": "done, diverged, missing (no record) or skipped (no run can fill it)",
    "reason": "why there is no score",
    "dataset": "data set",
    "dataset_hash": "hash of its definition",
    "protocol": "protocol",
    "protocol_hash": "hash of its definition",
    "model": "network that is trained",
    "student": "the same, its title",
    "student_family": "cnn or transformer",
    "weights": "sha256 of the initial backbone weights; empty: random",
    "teacher_model": "network that it learns from; empty: none",
    "teacher": "the same, its title",
    "teacher_family": "cnn or transformer",
    "teacher_kind": "run or checkpoint",
    "teacher_id": "id of the teacher's run, or sha256 of its checkpoint",
    "heterogeneous": "whether the two families differ",
    "method": "method, or recipe method@codebase; student: no distillation",
    "method_version": "version of the method",
    "variant": "what tables call the method with its hyper-parameters",
    "note": "where a recipe's weights come from, if not from its authors' setting",
    "hyper": "JSON: hyper-parameters of the method",
    "seed": "seed",
    "precision": "fp32 or amp",
    "overrides": "JSON: changes of the protocol's recipe",
    "off_protocol": "whether batch or images differ from the protocol",
    "harness": "version of training and evaluation",
    "setting_key": "equal for all that is measured against the same student, all seeds",
    "cell_key": "equal for the seeds of one table cell",
    "delta_key": "equal for a run and the student alone that its delta is taken against",
    "miou_last": "percent: mIoU of the last iteration, mmseg's convention",
    "miou_best": "percent: mIoU of the best validation",
    "best_iteration": "iteration of the best validation",
    "macc": "percent: mean accuracy of the classes, last iteration",
    "aacc": "percent: accuracy of all pixels, last iteration",
    "iterations": "iterations trained",
    "diverged_at": "iteration at which the loss was not finite",
    "curve": "JSON: [iteration, mIoU in percent] of every validation",
    "iou": "JSON: class -> IoU in percent, null for an empty union; last iteration",
    "step_s": "seconds per iteration, median: the student's own step",
    "teacher_s": "seconds per iteration, median: the teacher's forward pass",
    "data_s": "seconds per iteration, median: waiting for data",
    "iteration_s": "seconds per iteration as a single run: the sum of the three",
    "wall_s": "seconds: from the start of the job to the record, shared by its cohort",
    "share_s": "seconds: the run's part of that",
    "single_s": "seconds: what it would have taken alone",
    "gpu_s": "GPU-seconds: its share times the GPUs of the job",
    "memory_mb": "MB: peak of the job",
    "parameters": "trainable parameters of the student",
    "extra_parameters": "trainable parameters that the method adds",
    "cohort": "runs that trained together",
    "devices": "GPUs or processes that it was trained on at once",
    "commit": "commit of the code",
    "dirty": "whether the code had uncommitted changes",
    "device": "device",
    "processor": "processor",
    "started": "when its job began, UTC; runs of one job share it",
    "images": "hashes of the image lists",
    "teacher_miou": "percent: mIoU of the teacher as we found it",
    "teacher_published": "percent: mIoU of the teacher as the sweep says it was published",
    "teacher_off": "whether those two are further apart than the gate allows",
    "delta": "points: miou_last minus that of the student alone with the same delta_key",
    "delta_reason": "why there is no delta",
}
"""Column -> what it holds, with its unit; the order is that of the file."""


def write_collection(results: Results, file: Path) -> list[Path]:
    """Write the CSV and `NAME.dictionary.csv`; returns both.

    Raises:
        KdsegError: the name does not end in .csv, or a file cannot be written.
    """
    if file.suffix != ".csv":
        raise KdsegError(f"{file}: is to be a CSV file, such as {file.with_suffix('.csv').name}")
    make_folder(file.parent)
    dictionary = file.with_suffix(".dictionary.csv")
    rows = [[_field(row[name]) for name in (*COLUMNS, "delta", "delta_reason")] for row in results.rows.values()]
    write_bytes(file, _csv([(*COLUMNS, "delta", "delta_reason"), *rows]))
    write_bytes(dictionary, _csv([("column", "meaning"), *TEXTS.items()]))
    return [file, dictionary]


def _field(value: Any) -> Any:
    """What a CSV cell holds: nothing for what is not known, JSON for what has parts."""
    if isinstance(value, dict | tuple):
        return json.dumps(value, ensure_ascii=False)
    return "" if is_hole(value) else value


def _csv(rows: Any) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue().encode()
