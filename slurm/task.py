"""What runs inside a Slurm job: the worker, told when to stop, and put back into the queue with its resume files."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from types import FrameType

from submitit import JobEnvironment
from submitit.core.utils import DelayedSubmission

from benchmark.runs import Job
from benchmark.worker import Exit, finished, work


@dataclass(frozen=True)
class Task:
    """A job as submitit runs it, once in each process of a multi-process job.

    A time limit or a preemption with warning is a signal (USR2, or TERM where Slurm is not told to send another): the
    worker stops after its iteration and writes its resume files, then submitit calls `checkpoint` and requeues the job.
    Killed without warning, the job is requeued by Slurm itself, and goes on from the resume files it finds.
    """

    job: Job

    def __call__(self) -> None:
        """Train; ends the process with the worker's exit code, so that Slurm (and `afterok`) knows how it went."""
        ended = finished(self.job)
        if ended is None:
            ended = self._train()
        if ended is not Exit.DONE:
            raise SystemExit(int(ended))

    def checkpoint(self) -> DelayedSubmission:
        """What submitit runs after a requeue: the same job, which finds its resume files."""
        return DelayedSubmission(self)

    def _train(self) -> Exit:
        environment = JobEnvironment()
        prepare_environment(environment, self.job.execution.threads)
        asked: list[int] = []

        def ask(number: int, _: FrameType | None) -> None:
            asked.append(number)

        warning = getattr(signal, f"SIG{environment.USR_SIG}")
        requeue = signal.signal(warning, ask)
        before = signal.signal(signal.SIGTERM, ask)
        try:
            ended = work(self.job, stop=lambda: bool(asked))
        finally:
            signal.signal(signal.SIGTERM, before)
        if ended is Exit.INTERRUPTED and (warning in asked or still_running(environment.job_id)):
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
