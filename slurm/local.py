"""Runs the jobs of a plan here: each in a process of its own, a few at a time, teachers before their students."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.files import make_folder
from benchmark.records.run_directory import RunDirectory
from benchmark.spec.job_file import write_job
from benchmark.spec.runs import Job
from benchmark.training.worker import Exit

POLL_S = 0.5
NO_TEACHER = "not started: the teacher's run gave no result"


@dataclass(frozen=True)
class Outcome:
    """How a job ended; `message` is the end of its log if it failed, or why it could not start."""

    job: Job
    exit: int
    message: str = ""


def run_jobs(jobs: Sequence[Job], parallel: int, tick: Callable[[], None] = lambda: None) -> list[Outcome]:
    """Run jobs, at most `parallel` at a time; a job starts once its teacher's run is finished.

    Args:
        jobs: in the order in which they should start.
        parallel: how many processes.
        tick: called about twice a second, e.g. to redraw a progress bar.

    Raises:
        KeyboardInterrupt: after Ctrl-C, TERM or HUP. On this and any other error the jobs are told to stop, and have
            written their resume files.
    """
    waiting, outcomes = list(jobs), []
    running: dict[subprocess.Popen[bytes], Job] = {}
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        while waiting or running:
            for process in [process for process in running if process.poll() is not None]:
                outcomes.append(_outcome(running.pop(process), process.returncode))
            for job in list(waiting):
                pending = {run.id for other in (*waiting, *running.values()) for run in other.runs if other is not job}
                if job.teacher and job.teacher.id in pending:
                    continue
                if job.teacher and any(job.teacher.id in _without_result(outcome.job) for outcome in outcomes):
                    waiting.remove(job)
                    outcomes.append(Outcome(job, Exit.UNUSABLE, NO_TEACHER))
                elif len(running) < parallel:
                    waiting.remove(job)
                    running[_start(job)] = job
            tick()
            time.sleep(POLL_S)
    except BaseException:
        for process in running:
            process.send_signal(signal.SIGINT)
        for process in running:
            process.wait()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return outcomes


def log_file(job: Job) -> Path:
    """Where a job's output goes."""
    return Path(job.work_dir) / "jobs" / f"{job.id}.log"


def _without_result(job: Job) -> set[str]:
    """The runs of an ended job that nobody can learn from."""
    records = {run.id: RunDirectory(Path(job.work_dir), run.id).record() for run in job.runs}
    return {id_ for id_, record in records.items() if record is None or record.result is None}


def _start(job: Job) -> subprocess.Popen[bytes]:
    """Start a job in its own process group, so that Ctrl-C reaches it once, from us."""
    log = log_file(job)
    make_folder(log.parent)
    file = log.with_suffix(".json")
    write_job(file, job)
    threads = {"OMP_NUM_THREADS": str(job.execution.threads)}
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmark.training.worker", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | threads,
            start_new_session=True,
        )


def _outcome(job: Job, code: int) -> Outcome:
    if code in (Exit.DONE, Exit.DIVERGED):
        return Outcome(job, code)
    if code < 0:
        cause = " (out of memory?)" if -code == signal.SIGKILL else ""
        return Outcome(job, code, f"killed by {signal.Signals(-code).name}{cause}; the same command resumes it")
    lines = [line for line in log_file(job).read_text(errors="replace").splitlines() if line.strip()]
    return Outcome(job, code, lines[-1][:300] if lines else f"ended with exit code {code}")
