"""What `kdseg doctor` finds, the commands that mend it, and how files and commands are asked."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from benchmark.core.paths import ROOT


class FindingState(StrEnum):
    """`missing` and `broken` make the exit code 1; `optional` is advice, or something that is not needed."""

    OK = "ok"
    MISSING = "missing"
    BROKEN = "broken"
    OPTIONAL = "optional"


@dataclass(frozen=True)
class Finding:
    """What one check saw; `mend` is the command that changes it, empty if there is none."""

    name: str
    state: FindingState
    detail: str
    mend: str = ""


def pip(words: str) -> str:
    """A pip command for the Python that runs us."""
    python = Path(sys.executable)
    if python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())
    return f"{shlex.quote(str(python))} -m pip {words}"


def apt(packages: str) -> str:
    """An installation command of Debian and its kin."""
    return f"sudo apt-get install {packages}"


def pinned(distribution: str) -> str:
    """The distribution as requirements.txt pins it: the tested version."""
    pins = text(ROOT / "requirements.txt").split()
    return next((pin for pin in pins if pin.startswith(f"{distribution}==")), distribution)


def output_of(command: list[str], timeout_s: float = 30) -> str | None:
    """What a command printed, None if it failed or gave no answer in time."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout.decode(errors="replace").strip()


def text(path: str | Path) -> str:
    """A file's text, empty if it cannot be read."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
