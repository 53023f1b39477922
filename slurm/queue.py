"""What Slurm says: limits, the state of our jobs, what it would think of a script; and how to read that."""

from __future__ import annotations

import getpass
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmark.core.errors import KdsegError
from slurm.submissions import Submission

ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
"""States after which a job does nothing more; in all others it still runs or will."""
TIMEOUT_S = 60


@dataclass(frozen=True)
class Limits:
    """What a cluster allows.

    Attributes:
        array: most elements of an array (Slurm's MaxArraySize caps the index).
        jobs: most elements that one may have in the queue, by the association's MaxSubmitJobs; None: no limit.
    """

    cluster: str
    array: int
    jobs: int | None = None


@dataclass(frozen=True)
class Seen:
    """A job or array element as Slurm sees it.

    Attributes:
        state: Slurm's word, such as PENDING.
        reason: why it is pending.
        started: when its latest attempt began, in seconds since the epoch; None if it has not.
        exit_code: `code:signal` of an ended one.
    """

    state: str
    name: str
    reason: str = ""
    started: float | None = None
    exit_code: str = ""

    @property
    def live(self) -> bool:
        """Whether it runs or will run."""
        return self.state not in ENDED


def call(*command: str) -> str:
    """What a Slurm command says.

    Raises:
        KdsegError: it is not there, does not answer, or failed; the message is its own.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=TIMEOUT_S
        )
    except FileNotFoundError:
        raise KdsegError(f"{command[0]}: not found; is Slurm on this machine? (`kdseg doctor`)") from None
    except subprocess.TimeoutExpired:
        raise KdsegError(f"{command[0]}: no answer within {TIMEOUT_S} s") from None
    if done.returncode:
        message = " ".join((done.stderr.strip() or done.stdout.strip()).split())
        raise KdsegError(f"{command[0]}: {message[:400] or f'exit code {done.returncode}'}")
    return done.stdout


def cluster() -> str:
    """The name of this cluster."""
    return read_config(call("scontrol", "show", "config")).get("ClusterName", "")


def limits() -> Limits:
    """The limits of this cluster, for this user."""
    config = read_config(call("scontrol", "show", "config"))
    most = None
    if "none" not in config.get("AccountingStorageType", "none"):
        try:
            fields = ("sacctmgr", "-nP", "show", "assoc", f"user={getpass.getuser()}", "format=MaxSubmitJobs")
            most = min((int(line) for line in call(*fields).split() if line.isdecimal()), default=None)
        except KdsegError:
            most = None  # the database is down; sbatch itself will say no where there is a limit
    return Limits(config.get("ClusterName", ""), int(config.get("MaxArraySize", 1001)), most)


def read_config(text: str) -> dict[str, str]:
    """The `key = value` lines of `scontrol show config`."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def poll(entries: Iterable[Submission]) -> dict[str, Seen]:
    """Slurm's view of this user's jobs, by element id; ended ones too, if they are of these submissions.

    One call of squeue, and one of sacct for what squeue has forgotten (it fails where there is no accounting).

    Raises:
        KdsegError: Slurm does not answer.
    """
    seen = read_squeue(call("squeue", "-h", "-r", "-t", "all", "-u", getpass.getuser(), "-o", "%i|%T|%S|%r|%j"))
    gone = [
        entry
        for entry in entries
        if entry.job and any(entry.element(index) not in seen for index in range(len(entry.runs)))
    ]
    if not gone:
        return seen
    try:
        jobs = ",".join(entry.job for entry in gone)
        rows = call("sacct", "-nPX", "-D", "-j", jobs, "-o", "JobID,State,ExitCode,Submit,JobName")
    except KdsegError:
        return seen
    # What squeue no longer knows is not live, whatever the accounting has not heard yet.
    return {key: job for key, job in read_sacct(rows).items() if not job.live} | seen


def read_squeue(text: str) -> dict[str, Seen]:
    """Element id -> state, of `squeue -h -r -o %i|%T|%S|%r|%j`."""
    jobs = {}
    for line in text.splitlines():
        if line.count("|") >= 4:
            key, state, start, reason, name = line.split("|", 4)
            began = None if state == "PENDING" or start == "N/A" else datetime.fromisoformat(start).timestamp()
            jobs[key] = Seen(state=state, name=name, reason="" if reason == "None" else reason, started=began)
    return jobs


def read_sacct(text: str) -> dict[str, Seen]:
    """Element id -> its latest state, of `sacct -nPX -D -o JobID,State,ExitCode,Submit,JobName`.

    A requeued element has several rows; elements that never ran share one, as `7_[0,3-5%2]`.
    """
    latest: dict[str, tuple[str, Seen]] = {}
    for line in text.splitlines():
        if line.count("|") < 4:
            continue
        keys, state, code, submit, name = line.split("|", 4)
        seen = Seen(state=state.split()[0] if state else "", name=name, exit_code=code)
        for key in expand(keys):
            if key not in latest or latest[key][0] <= submit:
                latest[key] = (submit, seen)
    return {key: seen for key, (_, seen) in latest.items()}


def expand(keys: str) -> list[str]:
    """`7_[0,3-5%2]` as its elements, `7_0`, `7_3`, `7_4`, `7_5`; another id as it is."""
    match = re.fullmatch(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]", keys)
    if not match:
        return [keys]
    spans = (part.partition("-") for part in match[2].split(","))
    return [f"{match[1]}_{index}" for low, _, high in spans for index in range(int(low), int(high or low) + 1)]


def cancel(elements: Sequence[str]) -> None:
    """Cancel jobs or elements."""
    for start in range(0, len(elements), 500):
        call("scancel", *elements[start : start + 500])


def test_only(script: str, folder: Path) -> str:
    """What `sbatch --test-only` says of a script; nothing is queued.

    Raises:
        KdsegError: it would be refused.
    """
    try:
        done = subprocess.run(
            ["sbatch", "--test-only"],
            input=script,
            capture_output=True,
            text=True,
            errors="replace",
            cwd=folder,
            timeout=TIMEOUT_S,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise KdsegError(f"sbatch: {error}") from None
    message = " ".join(f"{done.stderr} {done.stdout}".split())
    if done.returncode:
        raise KdsegError(f"sbatch --test-only: {message}")
    return message
