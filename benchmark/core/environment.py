"""What code runs, on which machine and packages, as records state it."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmark.core.paths import ROOT, in_checkout

PACKAGES = (
    "torch",
    "onedl-mmengine",
    "onedl-mmcv",
    "onedl-mmsegmentation",
    "mmengine",
    "mmcv",
    "mmcv-lite",
    "mmsegmentation",
    "numpy",
    "opencv-python-headless",
    "pillow",
)
CODE = ("benchmark", "baselines", "methods", "slurm")
"""The folders whose files numbers can depend on."""


@cache
def code_version() -> tuple[str, bool]:
    """Commit of the checkout this code runs from, and whether its code differs; (`unknown`, True) outside git.

    A file that git does not track counts as a difference: a method that was just written is in no commit.
    """
    if not in_checkout():
        return "unknown", True

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", *CODE))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True


def package_versions() -> dict[str, str]:
    """Versions of the packages that numbers may depend on, and of Python."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


@cache
def processor() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
