"""What a finished run cost, as its record says."""

from __future__ import annotations

import resource

import torch

from benchmark import distributed
from benchmark.member import Member, trainable
from benchmark.record import Cost
from benchmark.timing import Spent, Timing


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
