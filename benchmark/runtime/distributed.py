"""Several processes that train one job together: how they meet, what each does, and what all must decide alike.

Started by `torchrun` or by `srun`; with a single process every function here is the identity. Flags and small objects
travel between CPUs (gloo), so that asking costs no wait for a GPU; gradients travel by nccl where there are GPUs.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous

from benchmark.core.errors import KdsegError

RENDEZVOUS_S = 300.0
"""Seconds that the first process waits for the last one."""
COLLECTIVE_S = 1800.0
"""Seconds that a process waits for the others later on: one may be copying a dataset."""
SETTLE_S = 0.5
"""Seconds that gloo's thread gets to free the last tensors: freed while the group goes, the two wait for each other."""
LOST = re.compile("gloo|nccl|connection (closed|reset)|broken pipe|timed out waiting|Socket", re.IGNORECASE)
"""What the errors of torch's backends say if a process of the job is gone."""

Value = TypeVar("Value")


class FailedTogether(KdsegError):
    """What one process raised, where all must go on alike; the message is the same in all."""


@dataclass(frozen=True)
class ProcessPlace:
    """One of `world` processes: its rank among all and on its node, and where they meet."""

    rank: int
    world: int
    local: int
    address: str
    port: int


def find_place(environment: Mapping[str, str]) -> ProcessPlace | None:
    """What torchrun's variables, else those of Slurm's srun, say of this process; None if it is the only one.

    A batch script has Slurm's variables of the whole job as well; only processes that srun started have a step's.

    Raises:
        KdsegError: a variable is missing or no number.
    """
    try:
        if int(environment.get("WORLD_SIZE", 1)) > 1:
            rank, world, local, port = (
                int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
            )
            return ProcessPlace(rank, world, local, environment["MASTER_ADDR"], port)
        if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
            rank, world, local, job = (
                int(environment[f"SLURM_{name}"]) for name in ("PROCID", "STEP_NUM_TASKS", "LOCALID", "JOB_ID")
            )
            port = job_port(job, int(environment.get("SLURM_STEP_ID", 0)))
            return ProcessPlace(rank, world, local, _first_node(environment), port)
    except (KeyError, ValueError) as error:
        what = f"variable {error} is missing" if isinstance(error, KeyError) else str(error)
        raise KdsegError(f"several processes: {what}; start them with torchrun or srun") from None
    return None


def job_port(job: int, step: int = 0) -> int:
    """Where the processes of a Slurm job (or of a later step of it) meet: other than those of the jobs beside it.

    Below 32768, where Linux begins to give ports to whoever asks for any.
    """
    return 20000 + (job + 4001 * step) % 12000


def _first_node(environment: Mapping[str, str]) -> str:
    """Name of the node of rank 0."""
    if int(environment.get("SLURM_STEP_NUM_NODES", 1)) == 1:
        return "127.0.0.1"
    nodes = environment["SLURM_STEP_NODELIST"]
    try:
        command = ["scontrol", "show", "hostnames", nodes]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        raise KdsegError(f"several processes: scontrol could not say which nodes {nodes} are") from None


@contextmanager
def joined(place: ProcessPlace | None, device: torch.device) -> Iterator[None]:
    """Within it the processes of the job know each other; left without an error, all leave together.

    Raises:
        KdsegError: they did not find each other in time, or one was lost.
    """
    if place is None:
        yield
        return
    where = f"{place.address}:{place.port}"
    try:
        patience = timedelta(seconds=RENDEZVOUS_S)
        store, _, _ = next(rendezvous(f"tcp://{where}", place.rank, place.world, timeout=patience))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=place.rank,
            world_size=place.world,
            timeout=timedelta(seconds=COLLECTIVE_S),
        )
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise KdsegError(
            f"rank {place.rank} of {place.world}: did not meet the other processes at {where} within "
            f"{RENDEZVOUS_S:.0f} s ({reason}); do all run, and does a firewall let them talk?"
        ) from None
    try:
        yield
        first(None)  # nobody goes before the first has written everything
        time.sleep(SETTLE_S)
    except RuntimeError as error:
        if message := lost(error):
            raise KdsegError(message) from None
        raise
    dist.destroy_process_group()


def rank() -> int:
    """Which of the processes this is; the first, 0, is the one that writes."""
    return dist.get_rank() if world() > 1 else 0


def world() -> int:
    """How many processes train this job."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def noise_key() -> tuple[int, ...]:
    """What a random stream's name needs besides, so that ranks draw other numbers; nothing for a single process."""
    return (rank(),) if world() > 1 else ()


def share(batch: int) -> int:
    """This process' part of an effective batch.

    Raises:
        KdsegError: the processes cannot have equal parts.
    """
    if batch % world():
        raise KdsegError(
            f"batch {batch}: cannot be divided among {world()} processes; take a number of them that divides it"
        )
    return batch // world()


def part(size: int) -> range:
    """The indices below `size` that are this process'; every index is one process'."""
    return range(size * rank() // world(), size * (rank() + 1) // world())


def any_rank(flag: bool) -> bool:
    """Whether some process says so; all must ask."""
    if world() == 1:
        return flag
    highest = torch.tensor([int(flag)])
    dist.all_reduce(highest, dist.ReduceOp.MAX)
    return bool(highest.item())


def agree(problem: Value | None) -> Value | None:
    """The problem of the first process that has one; None if none has."""
    if not any_rank(problem is not None) or world() == 1:
        return problem
    problems: list[Value | None] = [None] * world()
    dist.all_gather_object(problems, problem)
    return next(each for each in problems if each is not None)


def in_all(error: Exception) -> bool:
    """Whether all processes know of an error, so that they can go on without what raised it."""
    return world() == 1 or isinstance(error, FailedTogether)


def first(value: Value) -> Value:
    """What the first process says."""
    if world() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]


def summed(areas: np.ndarray) -> np.ndarray:
    """The sum over all processes, of whole numbers: each has zeros where another counted."""
    if world() == 1:
        return areas
    total = torch.from_numpy(areas)
    dist.all_reduce(total)
    return total.numpy()


def averaged(values: Mapping[str, float]) -> dict[str, float]:
    """The means over all processes."""
    if world() == 1:
        return dict(values)
    total = torch.tensor(list(values.values()), dtype=torch.float64)
    dist.all_reduce(total)
    return dict(zip(values, (total / world()).tolist(), strict=True))


def share_buffers(module: nn.Module) -> None:
    """Give the module the buffers that the first process has: without SyncBN each counts statistics of its own."""
    if world() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def lost(error: BaseException) -> str | None:
    """One line if an error means that another process of the job is gone; None if it means anything else."""
    if world() == 1 or not isinstance(error, RuntimeError) or not LOST.search(str(error)):
        return None
    return f"rank {rank()} of {world()}: lost another process of this job, whose own log says why"
