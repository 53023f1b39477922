"""What a finished run leaves: its record, and the areas that the record names.

A record says what went in and came out, what it cost, and where it comes from; tables and figures are functions of it.
"""

from __future__ import annotations

import gc
import logging
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from benchmark.core.errors import KdsegError
from benchmark.core.schema import Frozen, parse, read_json
from benchmark.records.migrations import MIGRATIONS, migrated
from benchmark.spec.runs import Run

_log = logging.getLogger(__name__)

SCHEMA = 2
"""Of records; those of earlier ones are migrated when they are read (`benchmark.records.migrations`)."""


class State(StrEnum):
    """What a run is at; `done` and `diverged` are final."""

    WAITING = "waiting"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    STALE = "stale"
    DONE = "done"
    DIVERGED = "diverged"


class Scores(Frozen):
    """Validation of one set of weights, in percent; a class with an empty union has no IoU."""

    iteration: int
    miou: float
    macc: float
    aacc: float
    iou: dict[str, float | None]


class Result(Frozen):
    """Scores of the last iteration (the primary number) and of the best validation; mIoU at every validation."""

    last: Scores
    best: Scores
    curve: tuple[tuple[int, float], ...]


class Divergence(Frozen):
    """The iteration (from 1) whose loss or gradient was not finite, and which it was."""

    iteration: int
    reason: str


class Cost(Frozen):
    """What the run cost. Seconds are medians per iteration; a single run costs the sum of all three.

    Attributes:
        step_s: this student's forward, losses, backward and update.
        teacher_s, data_s: the teacher's forward and waiting for data, shared by the cohort.
        wall_s: from the start of its job to its record, all attempts, shared by the cohort.
        share_s: the run's part of that: its own steps, its even part of what it shared, and of the rest.
        single_s: what it would have taken alone: its own steps, and all of what it shared.
        gpu_s: GPU-seconds, its share times the job's GPUs. (Records from before these three have None.)
        memory_mb: the job's peak: resident set on CPU, allocated on CUDA.
        extra_parameters: trainable parameters that the method adds.
        devices: GPUs or CPU processes that it was trained on at once.
    """

    step_s: float
    teacher_s: float
    data_s: float
    wall_s: float
    memory_mb: float
    parameters: int
    extra_parameters: int
    cohort: int
    devices: int
    share_s: float | None = None
    single_s: float | None = None
    gpu_s: float | None = None

    @property
    def iteration_s(self) -> float:
        """Seconds per iteration of the run on its own."""
        return self.step_s + self.teacher_s + self.data_s


class TeacherCheck(Frozen):
    """The teacher's mIoU in percent, as we find it on the validation images and as it was published.

    `off`: they differ by more than the gate allows (`benchmark.training.teacher_check`).
    """

    miou: float
    published: float | None = None
    off: bool = False


class Provenance(Frozen):
    """Where a record comes from: code, machine, software and data."""

    commit: str
    dirty: bool
    versions: dict[str, str]
    platform: str
    processor: str
    device: str
    threads: int
    workers: int
    load_average: float | None = None
    """Processes that ran or waited for a core in the last minute; more than the cores: seconds say little."""
    deterministic: bool
    numerics: dict[str, bool] = {}
    list_hashes: dict[str, str]
    images: dict[str, int]
    teacher_sha256: str | None
    started: str
    finished: str
    resumed_at: tuple[int, ...]
    teacher_check: TeacherCheck | None = None
    attempt: int | None = None
    """The number of the attempt that finished it; None: nobody counted."""


class Record(Frozen):
    """What a finished run leaves."""

    schema_version: int = SCHEMA
    id: str
    outcome: State
    inputs: Run
    iterations: int
    result: Result | None
    divergence: Divergence | None
    cost: Cost
    provenance: Provenance
    areas_sha256: str | None
    student_sha256: str | None


class _Miou(BaseModel):
    miou: float


class _Result(BaseModel):
    last: _Miou


class Brief(BaseModel):
    """What `status` reads of a record; all else in it is not even looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int
    id: str
    outcome: State
    iterations: int
    result: _Result | None

    @property
    def miou(self) -> float | None:
        """mIoU of the last iteration in percent; None if it diverged."""
        return self.result.last.miou if self.result else None


def records(folder: Path) -> list[Record]:
    """All records in a work directory or a folder of run directories, by run id.

    One that cannot be read is named in a warning and left out; its run counts as not finished, and is trained again.
    """
    whole, damaged = records_and_damage(folder)
    for line in damaged:
        _log.warning("left out: %s", line)
    return whole


def records_and_damage(folder: Path) -> tuple[list[Record], list[str]]:
    """All records that can be read, by run id, and what is wrong with each of the others, a line each."""
    whole, damaged = [], []
    files = [*Path(folder).glob("*/record.json"), *Path(folder).glob("runs/*/record.json")]
    collecting = gc.isenabled()
    gc.disable()  # it would walk over all records so far, again and again, and there is nothing to collect
    try:
        for file in sorted(files, key=lambda file: file.parent.name):
            try:
                whole.append(read_record(file))
            except KdsegError as error:
                damaged.append(str(error))
    finally:
        if collecting:
            gc.enable()
    return whole, damaged


def read_record(file: Path) -> Record:
    """Read and check one record; one of an earlier schema is migrated.

    Raises:
        KdsegError: it is damaged, of a schema that this version cannot read, or was changed by hand.
    """
    try:
        # Straight from the bytes, because there are many; whatever is wrong is found again below, and named.
        record = Record.model_validate_json(file.read_bytes(), strict=True)
    except (OSError, ValueError):
        record = None
    if record is None or record.schema_version != SCHEMA:
        record = parse(Record, _of_this_schema(file), str(file))
    if record.id != record.inputs.id:
        raise KdsegError(f"{file}: its id {record.id} is not that of its inputs, {record.inputs.id}; it was changed")
    return record


def _of_this_schema(file: Path) -> dict[str, Any]:
    data = read_json(file)
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version not in (*MIGRATIONS, SCHEMA):
        raise KdsegError(f"{file}: has schema {version}, this version reads {min(MIGRATIONS)} to {SCHEMA}")
    try:
        return migrated(data, SCHEMA)
    except (KeyError, TypeError) as error:
        raise KdsegError(f"{file}: is no record of schema {version}: {error} is missing or wrong") from None
