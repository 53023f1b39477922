"""One job in a process of its own, as a launcher starts it: `python -m benchmark.training.worker JOB.json`.

Exit codes: 0 all runs finished · 1 a run failed · 2 unusable input · 3 a run diverged · 130 asked to stop.
"""

from __future__ import annotations

import logging
import signal
import sys
import traceback
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from types import FrameType

from benchmark.core.errors import KdsegError
from benchmark.core.log import show_messages
from benchmark.records.record import State
from benchmark.records.run_directory import RunDirectory
from benchmark.spec.job_file import read_job
from benchmark.spec.runs import Job

_log = logging.getLogger("benchmark.training.worker")  # also where this module is `__main__`


class Exit(IntEnum):
    """How a job ended."""

    DONE = 0
    FAILED = 1
    UNUSABLE = 2
    DIVERGED = 3
    INTERRUPTED = 130


def run_job(job: Job, resume: bool = True, stop: Callable[[], bool] = lambda: False) -> Exit:
    """Train a job; the first Ctrl-C or TERM stops it after the current iteration, with resume files written.

    So does `stop`, which is asked after each iteration. Without `resume` it starts anew; resume files of earlier
    attempts are removed.
    """
    from benchmark.training.cohort import Interrupted
    from benchmark.training.trainer import train_job

    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)
        signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        failures = train_job(job, stop=lambda: bool(asked) or stop(), resume=resume)
    except (Interrupted, KeyboardInterrupt):
        _log.warning("stopped; the same command resumes it")
        return Exit.INTERRUPTED
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for failure in failures:
        _log.error("%s", failure)
    if failures:
        return Exit.FAILED
    return finished(job) or Exit.DONE


def finished(job: Job) -> Exit | None:
    """How a job ended of which every run has a whole record; None if there is something to train."""
    directories = [RunDirectory(Path(job.work_dir), run.id) for run in job.runs]
    if not all(directory.finished() for directory in directories):
        return None
    records = [directory.record() for directory in directories]
    return Exit.DIVERGED if any(record and record.outcome is State.DIVERGED for record in records) else Exit.DONE


def work(job: Job, stop: Callable[[], bool] = lambda: False) -> Exit:
    """`run_job` as the whole of a process: errors are said on stderr, and the exit code tells."""
    try:
        return run_job(job, stop=stop)
    except KdsegError as error:
        _log.error("error: %s", error)
        return Exit.UNUSABLE
    except Exception:
        traceback.print_exc()
        return Exit.FAILED


def main(argv: list[str]) -> int:
    """Run the job in a file."""
    show_messages()
    try:
        job = read_job(Path(argv[0]))
    except KdsegError as error:
        _log.error("error: %s", error)
        return Exit.UNUSABLE
    return work(job)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
