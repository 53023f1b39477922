"""The teacher of a job: frozen, in eval mode, outside every student's module tree, optimiser and checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmark.core.errors import KdsegError
from benchmark.core.files import file_sha256
from benchmark.core.weights import by_sha256
from benchmark.models import checkpoints
from benchmark.models.build import build_network, forward_taps
from benchmark.records.run_directory import RunDirectory
from benchmark.runtime.randomness import stream
from benchmark.spec import definitions
from benchmark.spec.definitions import Normalisation
from benchmark.spec.runs import Job, Run, TeacherSource


@dataclass(frozen=True)
class Teacher:
    """A frozen network, how it wants its pixels, and the sha256 of the file its weights came from."""

    network: nn.Module
    normalisation: Normalisation
    sha256: str

    def taps(self, inputs: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """Its taps for normalised pictures (N, 3, H, W), float32, without gradient.

        `no_grad` and not `inference_mode`: students use these tensors in differentiable operations, and their version
        counters tell who damages them.
        """
        with torch.no_grad():
            return {name: tap.float() for name, tap in forward_taps(self.network, inputs, names).items()}


def load_teacher(job: Job, runs: Sequence[Run], device: torch.device) -> Teacher | None:
    """The teacher that some runs of a job share; None if none of them has one.

    Raises:
        KdsegError: its run has not finished, or its file is missing, damaged, unsafe, or of another network.
    """
    student = next((run for run in runs if run.teacher), None)
    if student is None or student.teacher is None:
        return None
    return load_source(student.teacher, student, Path(job.work_dir), job.files, device)


def load_source(
    source: TeacherSource, student: Run, work_dir: Path, files: Mapping[str, str], device: torch.device
) -> Teacher:
    """The network that `source` names, with the weights that its record or its sha256 names.

    Args:
        source: a finished run of `work_dir`, or a checkpoint among `files` (sha256 -> path).
        student: a run on the same dataset; its protocol says how a checkpoint's pixels are normalised.
        work_dir, files, device: where things are.

    Raises:
        KdsegError: as `load_teacher`.
    """
    file, expected = _weights(source, work_dir, files)
    with stream(0, "teacher-init"):
        network = build_network(source.model, len(definitions.dataset(student.dataset).classes))
    checkpoints.load_weights(network, file)
    if expected not in (None, checkpoints.weights_hash(network)):
        raise KdsegError(f"{file}: its weights are not those that its record names; it was changed, train it again")
    network.requires_grad_(False).eval().to(device)
    own = RunDirectory(work_dir, source.id).inputs() if source.kind == "run" else student
    return Teacher(network, definitions.protocol(own.protocol).normalisation, file_sha256(file))


def _weights(source: TeacherSource, work_dir: Path, files: Mapping[str, str]) -> tuple[Path, str | None]:
    """The file of a source, and the hash its weights must have where a record names it."""
    if source.kind == "checkpoint":
        return by_sha256(files, source.id), None
    directory = RunDirectory(work_dir, source.id)
    record = directory.record()
    if record is None or record.result is None:
        state = "has not finished" if record is None else f"ended {record.outcome}"
        raise KdsegError(f"teacher {source.model}: its run {source.id} {state}; train it first")
    file = directory.path / "student.pth"
    if not file.is_file():
        raise KdsegError(f"{source.model}: {file} is gone; remove {directory.path} and train it again")
    return file, record.student_sha256
