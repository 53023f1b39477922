"""What runs inside a Slurm job: the worker, told when to stop, and put back into the queue with its resume files."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from pathlib import Path
from types import FrameType

from submitit import JobEnvironment

from benchmark.core.errors import KdsegError
from benchmark.core.log import show_messages
from benchmark.spec.job_file import read_job
from benchmark.spec.runs import Job
from benchmark.training.worker import Exit, finished, work

_log = logging.getLogger(__name__)


def run(file: str) -> None:
    """Train the job in a file; submitit calls it in each process of a job, and again after a requeue.

    A time limit or a preemption with warning is a signal (USR2, or TERM where Slurm is not told to send another): the
    worker stops after its iteration and writes its resume files, then submitit requeues the job. Killed without
    warning, the job is requeued by Slurm itself, and goes on from the resume files it finds.

    Raises:
        SystemExit: with the worker's exit code if that is not 0, so that Slurm (and `afterok`) knows how it went.
    """
    show_messages()
    try:
        job = read_job(Path(file))
    except KdsegError as error:
        _log.error("error: %s", error)
        raise SystemExit(int(Exit.UNUSABLE)) from None
    ended = finished(job)
    if ended is None:
        ended = _train(job)
    if ended is not Exit.DONE:
        raise SystemExit(int(ended))


class Task:
    """A job as submitit pickled it before jobs were files: one that still waits in a queue ends in one line."""

    def __new__(cls) -> Task:
        show_messages()
        _log.error("error: this job was queued by an earlier version of kdseg; submit the sweep again")
        raise SystemExit(int(Exit.UNUSABLE))


def _train(job: Job) -> Exit:
    environment = JobEnvironment()
    prepare_environment(environment, job.execution.threads)
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)

    warning = getattr(signal, f"SIG{environment.USR_SIG}")
    requeue = signal.signal(warning, ask)
    before = signal.signal(signal.SIGTERM, ask)
    try:
        ended = work(job, stop=lambda: bool(asked))
    finally:
        signal.signal(signal.SIGTERM, before)
    stopped = ended is Exit.INTERRUPTED and (warning in asked or still_running(environment.job_id))
    if stopped and callable(requeue):
        requeue(warning, None)  # submitit's: ends this process, unless it is not the first of its job
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(600)  # the requeue ends the others; an exit of their own would end the first before it is done
    return ended


def prepare_environment(environment: JobEnvironment, threads: int) -> None:
    """Set what must be set before torch is imported, and remove what a killed attempt left of submitit's."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    for leftover in environment.paths.folder.glob(f"{environment.job_id}_*.save_tmp"):
        leftover.unlink(missing_ok=True)


def still_running(element: str) -> bool:
    """Whether Slurm has this job as running: then a TERM was a preemption's warning, not a cancellation."""
    try:
        command = ["squeue", "-h", "-j", element, "-o", "%T"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip() == "RUNNING"
    except (OSError, subprocess.TimeoutExpired):
        return False
