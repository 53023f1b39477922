"""Runs, jobs, and what identifies them. Pure data: nothing is trained, read or written here."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from benchmark.core.errors import KdsegError
from benchmark.core.schema import Frozen, content_hash
from benchmark.spec import definitions
from benchmark.spec.definitions import Dataset, Positive, Protocol, TrainingRecipe, definition_hash
from benchmark.spec.networks import Network, network

HARNESS = 1
"""Version of training and evaluation as a whole: raised by hand whenever they change numbers."""


SHOWN = {"variant", "note"}
"""Fields of a method setting that only tables read."""


class MethodSetting(Frozen):
    """A method or recipe with all its hyper-parameters.

    What follows is for tables only, and no part of the run id: `variant` is what they call the setting, `note` what
    they say about its origin.
    """

    name: str
    version: int
    variant: str
    hyper: dict[str, bool | int | float | str]
    note: str = ""


class TeacherSource(Frozen):
    """Where the teacher's weights come from: its own run (last iteration), or a checkpoint by sha256."""

    model: str
    kind: Literal["run", "checkpoint"]
    id: str


class RunKeys(NamedTuple):
    """Hashes that are equal for the seeds of one cell; for a run and its student alone; for all seeds of the latter."""

    cell: str
    delta: str
    setting: str


class Run(Frozen):
    """One training: everything that decides its numbers, and nothing else."""

    dataset: str
    dataset_hash: str
    protocol: str
    protocol_hash: str
    model: str
    weights: str | None
    teacher: TeacherSource | None
    method: MethodSetting
    overrides: dict[str, Any]
    precision: Literal["fp32", "amp"]
    seed: int
    harness: int

    @property
    def id(self) -> str:
        """A hash of all that decides the numbers: 16 hex digits."""
        return content_hash(self.model_dump(mode="json", exclude={"method": SHOWN}))

    @property
    def keys(self) -> RunKeys:
        """What it has in common with other runs."""
        of_cell = self.model_dump(mode="json", exclude={"method": SHOWN, "seed": True})
        of_setting = {name: value for name, value in of_cell.items() if name not in ("teacher", "method")}
        of_delta = {**of_setting, "seed": self.seed}
        return RunKeys(content_hash(of_cell), content_hash(of_delta), content_hash(of_setting))

    @property
    def delta_key(self) -> str:
        """Equal for a run and the `student` run its Δ is taken against."""
        return self.keys.delta


Tracking = Literal["off", "offline", "online"]
"""Whether wandb gets a copy of a run, and whether it is sent at once."""


class Execution(Frozen):
    """How a job is carried out; recorded, but no part of any run id.

    Attributes:
        device: `cpu`, `cuda`, or `auto` (CUDA where there is a GPU).
        threads: torch threads of the process; part of what makes CPU results bit-equal.
        workers: data-loading processes; they change no number.
        deterministic: prefer deterministic GPU operations; those that have none only warn.
        checkpoint_interval: iterations between two resume files.
        stage: folder on the node's own disk that the dataset is copied to first; None: it is read where it is.
        strict_teacher: a teacher that is not as good or bad as published ends the job, instead of a warning.
        wandb: whether wandb gets a copy (`benchmark.training.tracking`).
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Positive = 1
    workers: Annotated[int, Field(ge=0)] = 0
    deterministic: bool = False
    checkpoint_interval: Positive = 100
    stage: str | None = None
    strict_teacher: bool = False
    wandb: Tracking = "off"


class Job(Frozen):
    """A cohort: runs that see the same batches and share one teacher pass. A single run is a cohort of one.

    Attributes:
        runs: with one `cohort_key` (runs without a teacher fit any).
        work_dir: the store that its run directories are in.
        data_root: of a dataset with files.
        files: paths of weight and checkpoint files, by sha256.
        off_protocol: whether another number of images than the official one is allowed; the record shows it.
        teacher_miou: published mIoU of teachers in percent, by the id of their source.
    """

    runs: tuple[Run, ...]
    work_dir: str
    off_protocol: bool = False
    data_root: str | None = None
    files: dict[str, str] = {}
    teacher_miou: dict[str, float] = {}
    execution: Execution = Execution()

    @property
    def id(self) -> str:
        """A hash of its runs."""
        return content_hash([run.id for run in self.runs])

    @property
    def teacher(self) -> TeacherSource | None:
        """The teacher that its runs share."""
        return next((run.teacher for run in self.runs if run.teacher), None)


class Skipped(Frozen):
    """A cell of a sweep that cannot be run, and why."""

    dataset: str
    protocol: str
    student: str
    teacher: str
    method: str
    variant: str
    reason: str


class Manifest(Frozen):
    """What a sweep is made of, written when it starts: status and tables read it without importing any method.

    Attributes:
        sweep: the sweep's name.
        runs: all its runs, teachers first.
        skips: cells it leaves out.
    """

    sweep: str
    runs: tuple[Run, ...]
    skips: tuple[Skipped, ...] = ()


def make_run(
    dataset: Dataset,
    protocol: Protocol,
    network: Network,
    method: MethodSetting,
    *,
    seed: int,
    teacher: TeacherSource | None = None,
    weights: str | None = None,
    overrides: dict[str, Any] | None = None,
    precision: Literal["fp32", "amp"] = "fp32",
) -> Run:
    """The run with these inputs, checked against each other.

    Raises:
        KdsegError: the protocol is not for this dataset, has no recipe for this family, or an override is wrong.
    """
    if dataset.name not in protocol.datasets:
        raise KdsegError(
            f"protocol {protocol.name}: not made for dataset {dataset.name}, only for {', '.join(protocol.datasets)}"
        )
    resolve_recipe(protocol, dataset.name, network, overrides or {})
    return Run(
        dataset=dataset.name,
        dataset_hash=definition_hash(dataset),
        protocol=protocol.name,
        protocol_hash=definition_hash(protocol),
        model=network.name,
        weights=weights,
        teacher=teacher,
        method=method,
        overrides=overrides or {},
        precision=precision,
        seed=seed,
        harness=HARNESS,
    )


def resolve_recipe(protocol: Protocol, dataset: str, network: Network, overrides: dict[str, Any]) -> TrainingRecipe:
    """The recipe `network` is trained with: the protocol's for family and dataset, with `overrides` such as `optim.lr`.

    Raises:
        KdsegError: an override names no key of the recipe (near matches are given), or has a wrong type.
    """
    return definitions.changed(protocol.recipe(network.family, dataset), overrides, "--cfg-options")


def run_recipe(run: Run) -> TrainingRecipe:
    """The recipe that a run is trained with, by the definitions as they are now."""
    return resolve_recipe(definitions.protocol(run.protocol), run.dataset, network(run.model), run.overrides)


def cohort_key(run: Run, recipe: TrainingRecipe, with_teacher: bool = True) -> str:
    """Equal for runs that may train in one job; `recipe` is the run's resolved one."""
    teacher = run.teacher.model_dump() if run.teacher and with_teacher else None
    return content_hash(
        [run.dataset, run.dataset_hash, recipe.data.model_dump(mode="json"), run.precision, run.seed, teacher]
    )
