"""Where a result comes from: code, machine, software and data, as a record states them."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmark.record import Provenance, TeacherCheck
from benchmark.runs import Execution
from benchmark.toolbox.data import SeededDataset

PACKAGES = (
    "torch", "onedl-mmengine", "onedl-mmcv", "onedl-mmsegmentation", "mmengine", "mmcv", "mmcv-lite", "mmsegmentation",
    "numpy", "opencv-python-headless", "pillow",
)  # fmt: skip
CODE = ("benchmark", "baselines", "methods", "slurm")
"""The folders whose files numbers can depend on."""


def provenance(
    execution: Execution,
    device: torch.device,
    splits: Mapping[str, SeededDataset],
    teacher_sha256: str | None,
    started: str,
    resumed_at: tuple[int, ...],
    code: Sequence[tuple[str, bool]],
    teacher_check: TeacherCheck | None = None,
    attempt: int | None = None,
) -> Provenance:
    """The provenance of a run that finishes now.

    `code` is the version of every attempt: one that had uncommitted changes, or a change between two, makes it dirty.
    """
    commit = code[-1][0]
    dirty = any(changed for _, changed in code) or len({version for version, _ in code}) > 1
    return Provenance(
        commit=commit,
        dirty=dirty,
        versions=package_versions(),
        platform=platform.platform(),
        processor=processor(),
        device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        workers=execution.workers,
        load_average=round(os.getloadavg()[0], 2),
        deterministic=execution.deterministic,
        numerics=_numerics() if device.type == "cuda" else {},
        list_hashes={name: split.list_hash() for name, split in splits.items()},
        images={name: len(split) for name, split in splits.items()},
        teacher_sha256=teacher_sha256,
        started=started,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        resumed_at=resumed_at,
        teacher_check=teacher_check,
        attempt=attempt,
    )


def _numerics() -> dict[str, bool]:
    """What a GPU does faster with other rounding."""
    return {
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "tf32_products": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }


@cache
def code_version() -> tuple[str, bool]:
    """Commit of the checkout this code runs from, and whether its code differs; (`unknown`, True) outside git.

    A file that git does not track counts as a difference: a method that was just written is in no commit.
    """
    root = Path(__file__).parent.parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", *CODE))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True


def package_versions() -> dict[str, str]:
    """Versions of the packages that numbers may depend on, and of Python."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def processor() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
