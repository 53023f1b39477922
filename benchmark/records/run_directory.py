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

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmark.core.errors import KdsegError
from benchmark.core.files import file_sha256, make_folder, write_bytes, write_json
from benchmark.core.schema import Frozen, parse, read_json
from benchmark.records.lease import STALE_S, Lease, leased
from benchmark.records.record import SCHEMA, Brief, Record, State, read_record
from benchmark.spec.runs import Manifest, Run

_log = logging.getLogger(__name__)


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
            state=state,
            iteration=iteration,
            iterations=iterations,
            time=time.time(),
            host=socket.gethostname(),
            pid=os.getpid(),
            **more,
        )
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
            brief = Brief.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise KdsegError(f"{file}: not readable as a record: {' '.join(str(error).split())[:200]}") from None
        if brief.schema_version != SCHEMA:
            record = read_record(file)
            brief = Brief.model_validate(record.model_dump(include={*Brief.model_fields}))
        if brief.id != self.id:
            raise KdsegError(f"{file}: is the record of another run, {brief.id}")
        return brief

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
            lines = [line for line in file.read_text(errors="replace").splitlines() if _iteration(line) <= iteration]
            write_bytes(file, "".join(line + "\n" for line in lines).encode())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory as its newest attempt (`benchmark.records.lease`): a second process is told who has it."""
        with leased(self.path) as self.lease:
            yield


def set_aside(file: Path, why: str) -> None:
    """Rename a damaged file, so that nothing takes it for whole and nobody loses it; a warning says so."""
    target = file.with_name(file.name + ".damaged")
    file.replace(target)
    _log.warning("set aside as %s: %s", target.name, why)


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
    by_name = {}
    for file in sorted((Path(work_dir) / "sweeps").glob("*.json")):
        try:
            by_name[file.stem] = parse(Manifest, read_json(file), str(file))
        except KdsegError as error:
            _log.warning("left out: %s", error)
    return by_name
