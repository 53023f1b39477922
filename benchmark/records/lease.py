"""Who trains a run: a lease in its directory, by which of two copies on two machines one gives way.

`lease_N.json` is attempt N's. The file system lets one of two creators win, and nobody else ever changes it: its owner
keeps it locked while it lives, and touches it as a heartbeat. The newest attempt holds the run; an older one notices
before it writes. A lock says nothing across machines on many file systems, so there the heartbeat decides, by the
clock of the file system alone.
"""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from benchmark.core.errors import KdsegError
from benchmark.core.files import write_json
from benchmark.core.schema import Frozen, parse, read_json

_log = logging.getLogger(__name__)

STALE_S = 120.0
"""Seconds without a heartbeat after which the owner is taken for dead, if it is on another machine."""
BEAT_S = 10.0


class LeaseLost(KdsegError):
    """A newer attempt has taken the run; this one must write nothing more."""


class Owner(Frozen):
    """A process that trains a run.

    Attributes:
        machine: of the boot of its kernel, which tells machines of one name apart.
        job: Slurm's id of its job, and how often Slurm has restarted that.
        released: it has left.
    """

    host: str
    machine: str
    pid: int
    job: str | None = None
    restart: int = 0
    released: bool = False


class Lease:
    """That this process trains a run, as attempt number `attempt`."""

    def __init__(self, folder: Path, attempt: int) -> None:
        self.folder, self.attempt = folder, attempt

    def check(self) -> None:
        """Raise `LeaseLost` if a newer attempt has begun."""
        newest = max(_attempts(self.folder), default=0)
        if newest != self.attempt:
            raise LeaseLost(
                f"{self.folder}: attempt {newest} trains this run now; this one, number {self.attempt}, stops and "
                "leaves its files alone"
            )


@contextmanager
def leased(folder: Path) -> Iterator[Lease]:
    """Hold the run in `folder`; a dead owner's lease is taken over, and one of the same Slurm job before its restart.

    Raises:
        KdsegError: somebody else trains it, or the folder cannot be written.
    """
    owner = _this_process()
    try:
        attempt, held = _take(folder, owner)
    except OSError as error:
        raise KdsegError(f"{folder}: cannot be written: {error.strerror or error}") from error
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(_file(folder, attempt), over), daemon=True)
    beating.start()
    with held:
        try:
            yield Lease(folder, attempt)
        finally:
            over.set()
            beating.join()
            if max(_attempts(folder), default=0) == attempt:
                write_json(_file(folder, attempt), owner.model_copy(update={"released": True}).model_dump(mode="json"))


def _take(folder: Path, owner: Owner) -> tuple[int, IO[str]]:
    temporary = folder / f".lease.{os.getpid()}.tmp"
    while True:
        attempts = _attempts(folder)
        newest = max(attempts, default=0)
        if newest and not _free(_file(folder, newest), owner):
            holder = _owner(_file(folder, newest))
            who = f"pid {holder.pid} on {holder.host}" if holder else "another"
            raise KdsegError(f"{folder}: is being trained by {who}")
        held = temporary.open("w", encoding="utf-8")
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            held.write(owner.model_dump_json())
            held.flush()
            os.link(temporary, _file(folder, newest + 1))  # whole and locked from the first moment, or not there
        except FileExistsError:
            held.close()
            continue
        finally:
            temporary.unlink()
        for old in attempts:
            _file(folder, old).unlink(missing_ok=True)
        return newest + 1, held


def _free(file: Path, asking: Owner) -> bool:
    """Whether the owner of a lease has left, is dead, or is to give way."""
    owner = _owner(file)
    if owner and owner.released:
        return True
    if owner and owner.job and owner.job == asking.job and owner.restart < asking.restart:
        return True
    try:
        if _locked(file):
            return False
        if owner and owner.machine == asking.machine:
            return True
        return _silent(file)
    except FileNotFoundError:
        return True


def _locked(file: Path) -> bool:
    with file.open("r+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _silent(file: Path) -> bool:
    """Wait until the owner gives a sign of life (False), or is silent for `STALE_S` (True)."""
    last = file.stat().st_mtime
    _log.warning("%s: waiting up to %.0f s for a sign of life of its owner", file, STALE_S)
    while file.stat().st_mtime == last:
        if _now(file.parent) - last > STALE_S:
            return True
        time.sleep(BEAT_S / 5)
    return False


def _now(folder: Path) -> float:
    """The time by the clock that stamps the files of a folder."""
    probe = folder / f".now.{os.getpid()}.tmp"
    try:
        probe.write_bytes(b"")
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _beat(file: Path, over: threading.Event) -> None:
    while not over.wait(BEAT_S):
        try:
            os.utime(file)
        except OSError:
            continue


def _owner(file: Path) -> Owner | None:
    """Who is named in a lease; None if it is gone or damaged."""
    try:
        return parse(Owner, read_json(file), str(file))
    except KdsegError:
        return None


def _attempts(folder: Path) -> list[int]:
    return [int(file.stem.removeprefix("lease_")) for file in folder.glob("lease_*.json")]


def _file(folder: Path, attempt: int) -> Path:
    return folder / f"lease_{attempt}.json"


def _this_process() -> Owner:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return Owner(
        host=platform.node(),
        machine=boot.read_text().strip() if boot.exists() else platform.node(),
        pid=os.getpid(),
        job=os.environ.get("SLURM_JOB_ID"),
        restart=int(os.environ.get("SLURM_RESTART_COUNT", 0)),
    )
