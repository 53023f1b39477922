"""What runs leave on disk. A run directory is named by the run id; a record in it *is* "finished".

run.json       the inputs, written once
lease_N.json   who trains it, as attempt N
status.json    state, iteration, heartbeat; replaced atomically
resume_N.pth   all that is needed to go on from iteration N (two generations, gone once finished)
scalars.jsonl  losses and validations
student.pth    the weights of the last iteration;  best.pth  those of the best validation
areas.npz      per image and class: intersection, union, prediction and label counts
record.json    the result, written last
"""

from __future__ import annotations

import gc
import hashlib
import io
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from benchmark.errors import KdsegError
from benchmark.files import file_sha256, make_folder, write_bytes, write_json
from benchmark.frozen import Frozen, parse, read_json
from benchmark.lease import Lease, leased
from benchmark.migrations import MIGRATIONS, migrated
from benchmark.runs import Manifest, Run

SCHEMA = 2
"""Of records; those of earlier ones are migrated when they are read (`benchmark.migrations`)."""
STALE_S = 120
"""Seconds without a heartbeat after which a running run is taken for dead."""


class State(StrEnum):
    """What a run is at; `done` and `diverged` are final."""

    WAITING = "waiting"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    STALE = "stale"
    DONE = "done"
    DIVERGED = "diverged"


class Status(Frozen):
    """The heartbeat of a run. Times are seconds since the epoch."""

    state: State
    iteration: int
    iterations: int
    seconds_per_iteration: float | None = None
    time: float
    host: str
    pid: int
    message: str = ""


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

    `off`: they differ by more than the gate allows (`benchmark.gate`).
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


class RunDirectory:
    """One run's files; of several processes that train it, only the first writes any (`writes`)."""

    def __init__(self, work_dir: Path, run_id: str, writes: bool = True) -> None:
        self.id = run_id
        self.path = Path(work_dir, "runs", run_id)
        self.writes = writes
        self.lease: Lease | None = None

    def writable(self) -> bool:
        """Whether this process writes the files of the run; to be asked before each.

        Raises:
            LeaseLost: another attempt does now.
        """
        if self.writes and self.lease:
            self.lease.check()
        return self.writes

    def create(self, run: Run) -> None:
        """Write `run.json`, or check that the one that is there says the same."""
        make_folder(self.path)
        file = self.path / "run.json"
        if not file.exists():
            write_json(file, run.model_dump(mode="json"))
        elif self.inputs() != run:
            raise KdsegError(f"{file}: is not the run that its folder is named after; move the folder away")

    def inputs(self) -> Run:
        """The run that is written in `run.json`."""
        return parse(Run, read_json(self.path / "run.json"), str(self.path / "run.json"))

    def status(self, now: float | None = None) -> Status | None:
        """The last heartbeat; None if the run was never started.

        A running one that is too old is `stale`. One that says `done` without a record is `waiting`: the record is
        what counts. One that cannot be read is `failed`, with the reason: it is no more than a heartbeat.
        """
        file = self.path / "status.json"
        if not file.exists():
            return None
        try:
            status = parse(Status, read_json(file), str(file))
        except KdsegError as error:
            return Status(state=State.FAILED, iteration=0, iterations=0, time=0, host="", pid=0, message=str(error))
        if status.state is State.RUNNING and (now or time.time()) - status.time > STALE_S:
            return status.model_copy(update={"state": State.STALE})
        if status.state in (State.DONE, State.DIVERGED) and not (self.path / "record.json").exists():
            return status.model_copy(update={"state": State.WAITING, "iteration": 0})
        return status

    def write_status(self, state: State, iteration: int, iterations: int, **more: Any) -> None:
        """Replace the heartbeat."""
        if not self.writable():
            return
        status = Status(
            state=state, iteration=iteration, iterations=iterations, time=time.time(), host=socket.gethostname(),
            pid=os.getpid(), **more,
        )  # fmt: skip
        write_json(self.path / "status.json", status.model_dump(mode="json"))

    def record(self) -> Record | None:
        """The record, if the run is finished; a damaged one is an error."""
        file = self.path / "record.json"
        return read_record(file) if file.exists() else None

    def brief(self) -> Brief | None:
        """The outcome alone, if the run is finished: what is read of thousands of records at once.

        Raises:
            KdsegError: the record cannot be read, or is another run's.
        """
        file = self.path / "record.json"
        try:
            found = Brief.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise KdsegError(f"{file}: not readable as a record: {' '.join(str(error).split())[:200]}") from None
        if found.schema_version != SCHEMA:
            record = read_record(file)
            found = Brief.model_validate(record.model_dump(include={*Brief.model_fields}))
        if found.id != self.id:
            raise KdsegError(f"{file}: is the record of another run, {found.id}")
        return found

    def damage(self) -> str | None:
        """What is wrong with the record or the areas it names; None if all is whole, or there is no record."""
        areas = self.path / "areas.npz"
        try:
            record = self.record()
        except KdsegError as error:
            return str(error)
        if record and record.areas_sha256 and not (areas.is_file() and file_sha256(areas) == record.areas_sha256):
            return f"{areas}: is missing or not what the record says"
        return None

    def finished(self) -> bool:
        """Whether there is a record, and all of it is whole."""
        return (self.path / "record.json").exists() and self.damage() is None

    def set_aside_damage(self) -> None:
        """Set a damaged record aside, so that the run is made again."""
        reason = self.damage()
        if reason:
            set_aside(self.path / "record.json", reason)

    def finish(self, record: Record, iterations: int) -> None:
        """Write the record (everything it names is already there), then drop what only a resume needs."""
        if not self.writable():
            return
        write_json(self.path / "record.json", record.model_dump(mode="json"))
        self.write_status(record.outcome, record.iterations, iterations)
        for file in self.resume_files().values():
            file.unlink()

    def resume_files(self) -> dict[int, Path]:
        """The resume files, by iteration, in ascending order."""
        files = {int(file.stem.removeprefix("resume_")): file for file in self.path.glob("resume_*.pth")}
        return dict(sorted(files.items()))

    def prune_resume_files(self) -> None:
        """Keep the two newest generations."""
        for iteration in list(self.resume_files())[:-2]:
            self.resume_files()[iteration].unlink()

    def trim_scalars(self, iteration: int) -> None:
        """Drop the lines of `scalars.jsonl` after an iteration: a killed attempt wrote them, and they come again."""
        file = self.path / "scalars.jsonl"
        if self.writable() and file.exists():
            kept = [line for line in file.read_text(errors="replace").splitlines() if _iteration(line) <= iteration]
            write_bytes(file, "".join(line + "\n" for line in kept).encode())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory as its newest attempt (`benchmark.lease`): a second process is told who has it."""
        with leased(self.path) as self.lease:
            yield


def records(folder: Path) -> list[Record]:
    """All records in a work directory or a folder of run directories, by run id.

    One that cannot be read is named on stderr and left out; its run counts as not finished and will be trained again.
    """
    found = []
    files = [*Path(folder).glob("*/record.json"), *Path(folder).glob("runs/*/record.json")]
    collecting = gc.isenabled()
    gc.disable()  # it would walk over all records so far, again and again, and there is nothing to collect
    try:
        for file in sorted(files, key=lambda file: file.parent.name):
            try:
                found.append(read_record(file))
            except KdsegError as error:
                print(f"left out: {error}", file=sys.stderr)
    finally:
        if collecting:
            gc.enable()
    return found


def set_aside(file: Path, why: str) -> None:
    """Rename a damaged file, so that nothing takes it for whole and nobody loses it; says so on stderr."""
    place = file.with_name(file.name + ".damaged")
    file.replace(place)
    print(f"set aside as {place.name}: {why}", file=sys.stderr)


def _iteration(line: str) -> float:
    """The iteration of a line of `scalars.jsonl`; a line that a killed process left half-written comes last."""
    try:
        return json.loads(line)["iteration"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


def write_manifest(work_dir: Path, manifest: Manifest) -> None:
    """Note what a sweep is made of."""
    folder = Path(work_dir) / "sweeps"
    make_folder(folder)
    write_json(folder / f"{manifest.sweep}.json", manifest.model_dump(mode="json"))


def manifests(work_dir: Path) -> dict[str, Manifest]:
    """The sweeps that were started in a work directory, by name; one that cannot be read is named and left out."""
    found = {}
    for file in sorted((Path(work_dir) / "sweeps").glob("*.json")):
        try:
            found[file.stem] = parse(Manifest, read_json(file), str(file))
        except KdsegError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


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


def write_areas(file: Path, names: list[str], areas: np.ndarray) -> str:
    """Write areas (images, 4, classes) int64 with their image names; returns the file's sha256."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, names=np.array(names), areas=areas)
    write_bytes(file, buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def read_areas(file: Path) -> tuple[list[str], np.ndarray]:
    """Image names and areas (images, 4, classes): intersection, union, prediction, label."""
    with np.load(file, allow_pickle=False) as data:
        return data["names"].tolist(), data["areas"]
