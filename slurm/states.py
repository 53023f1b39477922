"""What each run is at, from its own files first and from Slurm second: an element that COMPLETED proves nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from benchmark.core.errors import KdsegError
from benchmark.records.lease import STALE_S
from benchmark.records.record import State
from benchmark.records.run_directory import RunDirectory, Status
from benchmark.spec.runs import Run
from slurm.agenda import Known
from slurm.queue import Seen
from slurm.submissions import Attempt

OUT_OF_MEMORY = re.compile(r"out of memory|OutOfMemory|MemoryError|oom[-_ ]kill", re.IGNORECASE)
OUT_OF_TIME = re.compile(r"timed-out|DUE TO TIME LIMIT", re.IGNORECASE)
NOISE = re.compile(r"^(srun|slurmstepd|submitit|sbatch)\b|^\s|^$|^Traceback ")
TAIL = 8192
HELD = ("JobHeldUser", "JobHeldAdmin", "held")
HOPELESS = "DependencyNeverSatisfied"


class At(StrEnum):
    """What a run is at. The first two are final."""

    DONE = "done"
    DIVERGED = "diverged"
    RUNNING = "running"
    QUEUED = "queued"
    STALE = "stale"
    FAILED = "failed"
    STOPPED = "stopped"
    WAITING = "waiting"


class Cause(StrEnum):
    """Why a run failed; `cancelled` are those that somebody, or the failure of their teacher, took from the queue."""

    OOM = "oom"
    TIMEOUT = "timeout"
    NODE = "node"
    ERROR = "error"
    CANCELLED = "cancelled"


SLURM_CAUSES = {
    "OUT_OF_MEMORY": Cause.OOM,
    "TIMEOUT": Cause.TIMEOUT,
    "DEADLINE": Cause.TIMEOUT,
    "NODE_FAIL": Cause.NODE,
    "BOOT_FAIL": Cause.NODE,
    "PREEMPTED": Cause.NODE,
    "REVOKED": Cause.NODE,
    "CANCELLED": Cause.CANCELLED,
}


@dataclass(frozen=True)
class RunState:
    """One run as `status` shows it.

    Attributes:
        message: why it failed, waits, or is worth a look; one line.
        iteration, iterations: how far it came (0, 0: it never began).
        eta_s, heartbeat_s: seconds to its end, and since its last sign of life, while it runs.
        miou: in percent, of the last iteration, once it is done.
        element: Slurm's id of its latest job.
        log: of its latest job.
    """

    run: Run
    id: str
    at: At
    cause: Cause | None = None
    message: str = ""
    iteration: int = 0
    iterations: int = 0
    eta_s: float | None = None
    heartbeat_s: float | None = None
    miou: float | None = None
    element: str = ""
    log: str = ""

    @property
    def attention(self) -> bool:
        """Whether nothing will happen unless somebody acts."""
        stuck = self.at is At.QUEUED and (HOPELESS in self.message or any(word in self.message for word in HELD))
        return stuck or self.at in (At.DIVERGED, At.STALE, At.FAILED)


def run_states(
    runs: Mapping[str, Run], work_dir: Path, slurm: Known | None, now: float | None = None
) -> list[RunState]:
    """The state of each run, by run id. `slurm` is None if nothing was submitted, or if Slurm does not answer."""
    now = now or time.time()
    return [_run_state(run, id_, work_dir, slurm, now) for id_, run in runs.items()]


def _run_state(run: Run, id_: str, work_dir: Path, slurm: Known | None, now: float) -> RunState:
    directory = RunDirectory(work_dir, id_)
    try:
        brief = directory.brief()
    except KdsegError as error:
        return RunState(run, id_, At.FAILED, Cause.ERROR, str(error))
    if brief:
        at = At.DIVERGED if brief.outcome is State.DIVERGED else At.DONE
        message = f"diverged at iteration {brief.iterations}" if at is At.DIVERGED else ""
        done = brief.iterations
        return RunState(run, id_, at, message=message, iteration=done, iterations=done, miou=brief.miou)
    status = directory.status(now)
    attempt = slurm.attempts.get(id_) if slurm else None
    if slurm and attempt and attempt.submission.cluster == slurm.cluster:
        return _submitted(run, id_, status, attempt, slurm.look(id_), now)
    return _by_heartbeat(run, id_, status, now)


def _submitted(run: Run, id_: str, status: Status | None, attempt: Attempt, seen: Seen | None, now: float) -> RunState:
    """The state of a run that was submitted on this cluster."""
    known = replace(_waiting(run, id_, status), element=attempt.element, log=attempt.log)
    latest = status if status and status.time >= attempt.submission.submitted else None
    if seen and seen.live and seen.state == "PENDING":
        return replace(known, at=At.QUEUED, message=_waits(seen, attempt))
    if latest and latest.state is State.FAILED:
        return replace(known, at=At.FAILED, cause=_cause(latest.message), message=latest.message)
    if seen and seen.live:
        silent = now - max(latest.time if latest else 0, seen.started or now)
        if silent > STALE_S:
            message = f"no sign of life for {silent:.0f} s, though Slurm has it as {seen.state.lower()}"
            return replace(known, at=At.STALE, message=message, heartbeat_s=silent)
        if latest is None or latest.time < (seen.started or 0):
            return replace(known, at=At.RUNNING, message="starting")
        return replace(known, at=At.RUNNING, eta_s=_eta(latest), heartbeat_s=now - latest.time)
    line = last_line(Path(attempt.log))
    cause = SLURM_CAUSES.get(seen.state) if seen else None
    if cause is None:
        cause = _cause(line)
    return replace(known, at=At.FAILED, cause=cause, message=_ending(seen, cause, line))


def _by_heartbeat(run: Run, id_: str, status: Status | None, now: float) -> RunState:
    """The state of a run of which Slurm knows nothing: not submitted, run here, or submitted elsewhere."""
    known = _waiting(run, id_, status)
    if status is None:
        return known
    if status.state is State.RUNNING:
        return replace(known, at=At.RUNNING, eta_s=_eta(status), heartbeat_s=now - status.time)
    if status.state is State.STALE:
        message = f"no sign of life for more than {STALE_S} s, from pid {status.pid} on {status.host}"
        return replace(known, at=At.STALE, message=message, heartbeat_s=now - status.time)
    if status.state is State.FAILED:
        return replace(known, at=At.FAILED, cause=_cause(status.message), message=status.message)
    if status.state is State.INTERRUPTED:
        return replace(known, at=At.STOPPED, message=status.message)
    return known


def _waiting(run: Run, id_: str, status: Status | None) -> RunState:
    """A run that waits, and how far it came."""
    if status is None:
        return RunState(run, id_, At.WAITING)
    return RunState(run, id_, At.WAITING, iteration=status.iteration, iterations=status.iterations)


def last_line(log: Path) -> str:
    """The last line of a log that says something: not of submitit or Slurm, if there is another."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    text = [line for line in lines if line.strip()]
    telling = [line for line in text if not NOISE.match(line)]
    killed = [line for line in text if OUT_OF_MEMORY.search(line) or OUT_OF_TIME.search(line)]
    return (killed or telling or text or [""])[-1].strip()[:300]


def _cause(line: str) -> Cause:
    if OUT_OF_MEMORY.search(line):
        return Cause.OOM
    return Cause.TIMEOUT if OUT_OF_TIME.search(line) else Cause.ERROR


def _ending(seen: Seen | None, cause: Cause, line: str) -> str:
    """One line about how a job ended that left no record."""
    if seen is None:
        return f"Slurm no longer knows its job{': ' + line if line else ''}"
    if cause is Cause.CANCELLED:
        return line or "cancelled, by somebody or because its teacher failed"
    _, _, number = seen.exit_code.partition(":")
    killed = " (killed by SIGKILL, perhaps out of memory)" if number == "9" and cause is Cause.ERROR else ""
    state = seen.state.lower().replace("_", " ")
    return f"{state}{killed}{': ' + line if line else ''}"


def _waits(seen: Seen, attempt: Attempt) -> str:
    """Squeue's reason, and what to do about it where something has to be done."""
    if any(word in seen.reason for word in HELD):
        return f"{seen.reason}: scontrol release {attempt.element}"
    if HOPELESS in seen.reason:
        return f"{seen.reason}: its teacher failed"
    return seen.reason


def _eta(status: Status) -> float | None:
    if status.seconds_per_iteration is None:
        return None
    return status.seconds_per_iteration * (status.iterations - status.iteration)
