"""What was submitted from a work directory: a line per array in `slurm/submissions.jsonl`, appended and never changed.

Each array is noted twice: before it is submitted, under a name that no other job has, and with Slurm's id right after.
So whatever stops us in between, Slurm can still be asked for a job of that name.
"""

from __future__ import annotations

import fcntl
import os
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from benchmark.core.errors import KdsegError
from benchmark.core.files import append_line, make_folder
from benchmark.core.schema import Frozen


class Submission(Frozen):
    """One array (or single job) that was submitted.

    Attributes:
        name: the job's name in Slurm; the sweep's, and a number of our own.
        job: Slurm's id; empty as long as it is not known whether it was submitted.
        folder: holds its logs and pickles.
        submitted: seconds since the epoch.
        runs: ids of the runs of each element.
        attempts: of each element: how often its runs were submitted by now.
    """

    sweep: str
    cluster: str
    profile: str
    name: str
    job: str = ""
    folder: str
    submitted: float
    runs: tuple[tuple[str, ...], ...]
    attempts: tuple[int, ...]

    def element(self, index: int) -> str:
        """Slurm's id of an element: `JOB_INDEX`, or `JOB` where there is but one."""
        return self.job if len(self.runs) == 1 else f"{self.job}_{index}"

    def log(self, index: int, kind: str = "err") -> str:
        """The log file of an element's first process, `out` or `err`."""
        return f"{self.folder}/{self.element(index)}_0_log.{kind}"


@dataclass(frozen=True)
class Attempt:
    """The latest submission of a run."""

    submission: Submission
    index: int

    @property
    def element(self) -> str:
        """Slurm's id of the element that holds the run."""
        return self.submission.element(self.index)

    @property
    def log(self) -> str:
        """The run's error log."""
        return self.submission.log(self.index)


def folder(work_dir: Path) -> Path:
    """Where everything about submissions is."""
    return Path(work_dir) / "slurm"


def own_folder(path: Path) -> Path:
    """A folder that is ours and that not everybody may write to: what lies in it is unpickled in our jobs.

    Raises:
        KdsegError: it belongs to somebody else, or cannot be made.
    """
    make_folder(path)
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise KdsegError(f"{path}: belongs to another user, who could have your jobs run anything; use another folder")
    if status.st_mode & stat.S_IWOTH:
        path.chmod(stat.S_IMODE(status.st_mode) & ~stat.S_IWOTH)
    return path


def unique_name(sweep: str) -> str:
    """A job name that no other job has."""
    return f"{sweep}.{uuid.uuid4().hex[:8]}"


def note(work_dir: Path, submission: Submission) -> None:
    """Append a submission."""
    append_line(folder(work_dir) / "submissions.jsonl", submission.model_dump_json())


def submissions(work_dir: Path) -> list[Submission]:
    """All submissions, oldest first, each as it was noted last; a line that was cut off is left out."""
    file = folder(work_dir) / "submissions.jsonl"
    by_name: dict[str, Submission] = {}
    if file.exists():
        for line in file.read_bytes().splitlines():
            try:
                entry = Submission.model_validate_json(line)
            except ValidationError:
                continue
            by_name[entry.name] = entry
    return list(by_name.values())


def attempts(entries: Iterable[Submission]) -> dict[str, Attempt]:
    """Run id -> its latest submission, of those that reached Slurm."""
    return {
        run: Attempt(entry, index)
        for entry in entries
        if entry.job
        for index, runs in enumerate(entry.runs)
        for run in runs
    }


@contextmanager
def lock(work_dir: Path) -> Iterator[None]:
    """Hold the work directory's submissions; a second submit is told to wait."""
    with (own_folder(folder(work_dir)) / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise KdsegError(f"{folder(work_dir)}: another kdseg submits from here; wait for it") from None
        yield
