"""What a record states of a run that finishes: where it comes from (code, machine, software, data) and what it cost."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import torch

from benchmark.core.environment import package_versions, processor
from benchmark.data.datasets import SeededDataset
from benchmark.records.record import Cost, Provenance, TeacherCheck
from benchmark.runtime import distributed
from benchmark.runtime.clocks import Spent, Timing
from benchmark.spec.runs import Execution
from benchmark.training.member import Member, trainable


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


def cost(member: Member, timing: Timing, spent: Spent, device: torch.device, cohort: int) -> Cost:
    """The cost of a run that finishes now in a cohort of so many runs."""
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated() / 2**20
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    devices = distributed.world()
    return Cost(
        step_s=member.steps.median(),
        teacher_s=timing.teacher.median() if member.run.teacher else 0.0,
        data_s=timing.data.median(),
        wall_s=spent.wall_s,
        share_s=spent.share_s,
        single_s=spent.single_s,
        gpu_s=devices * spent.share_s if device.type == "cuda" else 0.0,
        memory_mb=memory,
        parameters=trainable(member.student),
        extra_parameters=trainable(member.method),
        cohort=cohort,
        devices=devices,
    )
