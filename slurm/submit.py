"""Arrays to Slurm through submitit: one sbatch each, noted before and right after. Waits for nothing."""

from __future__ import annotations

import io
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import FunctionSequence, clean_env

from benchmark.core.errors import KdsegError
from benchmark.spec.job_file import write_job
from benchmark.spec.runs import Job
from slurm.arrays import Array
from slurm.profiles import Resources
from slurm.queue import Limits, test_only
from slurm.submissions import Submission, folder, note, own_folder, unique_name


@dataclass(frozen=True)
class SubmitRequest:
    """What is to be submitted: arrays, whose they are, and what is known of runs by now.

    Attributes:
        elements: run id -> Slurm element, of teachers that were submitted before and are still live.
        attempts: run id -> how often it was submitted before.
    """

    sweep: str
    profile: str
    work_dir: Path
    limits: Limits
    arrays: Sequence[Array]
    elements: Mapping[str, str]
    attempts: Mapping[str, int]


def submit(batch: SubmitRequest, room: int | None, report: Callable[[Submission, Array], None]) -> int:
    """Submit arrays until all are, or `room` elements (what the queue still takes; None: any number).

    Returns:
        How many jobs were left for another time.

    Raises:
        KdsegError: Slurm refused one; those before it are submitted, and noted.
    """
    check_folder(batch.work_dir)
    submitted: dict[int, Submission] = {}
    elements = dict(batch.elements)
    left = 0
    for position, array in enumerate(batch.arrays):
        count = len(array.jobs)
        stranded = array.teacher is not None and array.teacher not in elements
        if stranded or (room is not None and count > room):
            left += count
            continue
        room = None if room is None else room - count
        # One that is left for another time runs nothing, so there is nothing to wait for.
        after = submitted.get(array.after) if array.after is not None else None
        done = _submit_one(batch, array, dependency(array, elements, after))
        submitted[position] = done
        for index, runs in enumerate(done.runs):
            elements |= dict.fromkeys(runs, done.element(index))
        report(done, array)
    return left


def dependency(array: Array, elements: Mapping[str, str], after: Submission | None) -> str:
    """What an array waits for, as sbatch reads it: its teacher's element alone, and the end of the array before it."""
    parts = [f"afterok:{elements[array.teacher]}"] if array.teacher else []
    return ",".join([*parts, *([f"afterany:{after.job}"] if after else [])])


def script(batch: SubmitRequest, array: Array, name: str, waits_for: str = "") -> str:
    """The text that sbatch gets for an array."""
    count = len(array.jobs)
    executor = _executor(batch, array, name, waits_for)
    if count > 1:
        executor.parameters["map_count"] = count
    return executor._make_submission_file_text(executor._submitit_command_str, "")


def test(batch: SubmitRequest, array: Array, name: str) -> str:
    """What Slurm would say to an array (without its dependencies, which do not exist yet)."""
    with _clean_environment():
        return test_only(script(batch, array, name), batch.work_dir)


def parameters(resources: Resources, name: str, parallel: int, waits_for: str) -> dict[str, Any]:
    """What submitit's `SlurmExecutor` is told; what is None or empty is left to the cluster."""
    several = resources.tasks > 1
    srun = ["--kill-on-bad-exit=1", f"--cpus-per-task={resources.cpus_per_task}"] if several else []
    more: dict[str, Any] = {"requeue": True}
    if waits_for:
        more["kill-on-invalid-dep"] = "yes"
    more |= {key: value for key, value in resources.additional_parameters.items() if value is not False}
    options = {
        "job_name": name,
        "time": resources.timeout_min,
        "signal_delay_s": resources.signal_delay_s,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.tasks // resources.nodes,
        "cpus_per_task": resources.cpus_per_task,
        "gpus_per_node": resources.gpus_per_node or None,
        "mem": f"{round(1024 * resources.mem_gb)}M" if resources.mem_gb else None,
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "exclude": resources.exclude,
        "array_parallelism": parallel,
        "dependency": waits_for or None,
        "setup": list(resources.setup) or None,
        "srun_args": [*srun, *resources.srun_args] or None,
        "additional_parameters": more,
    }
    return {key: value for key, value in options.items() if value is not None} | {"wckey": resources.wckey}


def check_folder(path: Path) -> None:
    """Refuse a work directory that Slurm would read as something else.

    Raises:
        KdsegError: a line break in its name, or a %, which Slurm replaces in names of log files.
    """
    if re.search(r"[%\x00-\x1f\x7f]", str(path)):
        raise KdsegError(f"--work-dir {str(path)!r}: Slurm cannot write logs below a name with % or control characters")


def _submit_one(batch: SubmitRequest, array: Array, waits_for: str) -> Submission:
    name = unique_name(batch.sweep)
    runs = tuple(tuple(run.id for run in job.runs) for job in array.jobs)
    entry = Submission(
        sweep=batch.sweep,
        cluster=batch.limits.cluster,
        profile=batch.profile,
        name=name,
        submitted=time.time(),
        folder=str(folder(batch.work_dir) / name),
        runs=runs,
        attempts=tuple(1 + max((batch.attempts.get(run, 0) for run in element), default=0) for element in runs),
    )
    with _private_files():
        own_folder(Path(entry.folder))
        tasks = [_task(Path(entry.folder) / f"job_{index}.json", job) for index, job in enumerate(array.jobs)]
        executor = _executor(batch, array, name, waits_for)
        with _clean_environment(), _uninterrupted():
            note(batch.work_dir, entry)
            try:
                with redirect_stderr(io.StringIO()):  # submitit repeats what sbatch says, and then raises it
                    jobs = executor.submit_array(tasks)
            except (FailedJobError, FailedSubmissionError) as error:
                raise KdsegError(f"Slurm refused {name}: {_last_line(error)}") from None
            entry = entry.model_copy(update={"job": jobs[0].job_id.partition("_")[0]})
            note(batch.work_dir, entry)
    return entry


def _task(file: Path, job: Job) -> FunctionSequence:
    """Write a job's file, and what submitit is to pickle: names of its own and Python's, and the file's path.

    Nothing of ours is in the pickle: a job that waits in the queue runs by the code that is there when it starts. The
    sequence, of one call, is there for its `checkpoint`: submitit puts only what has one back into the queue.
    """
    write_job(file, job)
    task = FunctionSequence()
    task.add(exec, f"from slurm.task import run; run({str(file)!r})")
    return task


def _executor(batch: SubmitRequest, array: Array, name: str, waits_for: str) -> SlurmExecutor:
    executor = SlurmExecutor(folder(batch.work_dir) / name, max_num_timeout=array.resources.max_num_timeout)
    executor.update_parameters(**parameters(array.resources, name, array.parallel, waits_for))
    return executor


@contextmanager
def _private_files() -> Iterator[None]:
    """New files follow the user's umask, but are never everybody's to write: jobs unpickle them."""
    before = os.umask(0o077)
    os.umask(before | 0o002)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def _clean_environment() -> Iterator[None]:
    """Without what an enclosing job or a user's defaults set; which cluster is meant stays."""
    variables = {key: os.environ[key] for key in ("SLURM_CONF", "SLURM_CLUSTERS") if key in os.environ}
    with clean_env():
        os.environ.update(variables)
        yield


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C and TERM wait until what was submitted is noted."""
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = next((line for line in lines if "error:" in line), lines[-1] if lines else "no reason given")
    return message.partition("sbatch: error: ")[2] or message
