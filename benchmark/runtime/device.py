"""What is set once in a process that trains: threads, determinism, and which device it takes."""

from __future__ import annotations

import torch

from benchmark.core.errors import KdsegError
from benchmark.spec.runs import Job


def prepare_process(job: Job, local: int | None = None) -> torch.device:
    """Set threads and determinism for this process; returns the device.

    `local` is the rank on this node of one of several processes: each takes a GPU of those that it sees.
    """
    execution = job.execution
    torch.set_num_threads(execution.threads)
    if execution.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    wanted = execution.device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise KdsegError("device cuda: this machine has no usable GPU; use --device cpu")
    device = torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and any(run.precision == "amp" for run in job.runs):
        raise KdsegError("--amp: needs a CUDA device; train in fp32 here")
    if device.type == "cuda" and local is not None:
        device = torch.device("cuda", local % torch.cuda.device_count())
        torch.cuda.set_device(device)
    return device


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or here (which torch reports as a plain RuntimeError)."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)
