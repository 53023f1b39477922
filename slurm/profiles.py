"""Cluster profiles: what a job asks Slurm for, under the names that submitit and hydra use.

A profile is a file of `slurm/profiles/`, or one of yours; `methods` and `models` hold what differs for some of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from benchmark.core.errors import KdsegError, unknown
from benchmark.core.paths import PROFILES
from benchmark.core.schema import Frozen, parse, read_yaml
from benchmark.spec.definitions import Positive
from benchmark.spec.networks import networks
from benchmark.spec.runs import Job

Text = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$")]
"""One line: a line break in an `#SBATCH` line would end it, and the rest would be run."""
Option = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]

LARGEST = ("nodes", "gpus_per_node", "tasks_per_node", "cpus_per_task", "mem_gb", "timeout_min", "signal_delay_s")
"""Where runs that train together differ, their job gets the largest of these; in all else they must agree."""


class Resources(Frozen):
    """What one job gets. A key that is left out is left to the cluster.

    Attributes:
        tasks_per_node: processes a node; by default one per GPU, so `gpus_per_node` and `nodes` alone give DDP.
        timeout_min: the job's time limit; a job that reaches it goes on in the queue, from its resume files.
        signal_delay_s: seconds before the limit at which a job is told to stop; more than one validation takes.
        max_num_timeout: how often one job may reach its limit.
        setup: shell lines before the job's command, such as `module load cuda`.
        additional_parameters: any other option of sbatch, by its long name.
    """

    partition: Text | None = None
    account: Text | None = None
    qos: Text | None = None
    constraint: Text | None = None
    exclude: Text | None = None
    wckey: Text | None = None
    nodes: Positive = 1
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    tasks_per_node: Positive | None = None
    cpus_per_task: Positive = 1
    mem_gb: Annotated[float, Field(gt=0)] | None = None
    timeout_min: Positive = 60
    signal_delay_s: Positive = 90
    max_num_timeout: Annotated[int, Field(ge=0)] = 100
    setup: tuple[Text, ...] = ()
    srun_args: tuple[Text, ...] = ()
    additional_parameters: dict[Option, bool | int | float | Text] = {}

    @property
    def tasks(self) -> int:
        """Processes of a job."""
        return self.nodes * (self.tasks_per_node or max(1, self.gpus_per_node))

    def check(self, where: str) -> None:
        """Refuse what Slurm would accept and then never carry out.

        Raises:
            KdsegError: the warning would come before the job has begun.
        """
        if self.signal_delay_s >= 60 * self.timeout_min:
            raise KdsegError(
                f"{where}: signal_delay_s {self.signal_delay_s} is not below timeout_min {self.timeout_min} "
                f"({60 * self.timeout_min} s); every job would be told to stop as soon as it starts"
            )


class Profile(Resources):
    """A cluster: the resources of a job, how many jobs at once, and what differs for some methods and models.

    Attributes:
        array_parallelism: most jobs of a sweep that run at the same time.
        methods, models: by name, keys of `Resources`; a model's are those of the network that is trained.
    """

    array_parallelism: Positive = 256
    methods: dict[str, dict[str, Any]] = {}
    models: dict[str, dict[str, Any]] = {}

    def of(self, model: str, method: str, where: str) -> Resources:
        """What a run of this network and method needs."""
        values = {key: getattr(self, key) for key in Resources.model_fields}
        for group, name in (("models", model), ("methods", method)):
            override = parse(Resources, getattr(self, group).get(name, {}), f"{where}: {group}.{name}")
            values |= {key: getattr(override, key) for key in override.model_fields_set}
        return Resources(**values)


def allot(profile: Profile, jobs: Iterable[Job], where: str) -> list[Resources]:
    """What each job gets: the most that one of its runs needs.

    Raises:
        KdsegError: runs of one job cannot share it, e.g. for want of a common partition.
    """
    known: dict[frozenset[tuple[str, str]], Resources] = {}
    allotted = []
    for job in jobs:
        kinds = frozenset((run.model, run.method.name) for run in job.runs)
        if kinds not in known:
            known[kinds] = merged([profile.of(*kind, where) for kind in sorted(kinds)], where)
        allotted.append(known[kinds])
    return allotted


def equipped(job: Job, resources: Resources, workers: int | None) -> Job:
    """A job that uses what it gets: GPUs or nothing where it asks for some, and its other cores to load pictures.

    Args:
        workers: loading processes, where somebody said how many.
    """
    changes: dict[str, Any] = {"workers": resources.cpus_per_task - 1 if workers is None else workers}
    if resources.gpus_per_node and job.execution.device == "auto":
        changes["device"] = "cuda"  # or a node whose GPU torch cannot use would train on its CPU for days
    return job.model_copy(update={"execution": job.execution.model_copy(update=changes)})


def merged(parts: Sequence[Resources], where: str) -> Resources:
    """The resources that satisfy all `parts`."""
    result = parts[0]
    for other in parts[1:]:
        for key in Resources.model_fields:
            first, second = getattr(result, key), getattr(other, key)
            if first != second and key not in LARGEST:
                raise KdsegError(
                    f"{where}: runs of one job ask for different {key} ({first} and {second}); "
                    "make them agree, or pass --cohort 1"
                )
            if first != second:
                result = result.model_copy(update={key: max(value for value in (first, second) if value is not None)})
    return result


def names() -> list[str]:
    """The profiles that come with the suite."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_profile(name: str) -> Profile:
    """The profile called `name`, or the one in the file `name`; checked as a whole, overrides too.

    Raises:
        KdsegError: there is none, or a key, name or value in it is wrong.
    """
    path = Path(name) if Path(name).suffix in (".yaml", ".yml") else PROFILES / f"{name}.yaml"
    if not path.is_file():
        if path.parent != PROFILES:
            raise KdsegError(f"{path}: no such file")
        raise unknown("profile", name, names(), "--profile")
    profile = parse(Profile, read_yaml(path), path.name)
    profile.check(path.name)
    if profile.methods:
        from benchmark.method.registry import method_files

        for name in profile.methods:
            if name.partition("@")[0] not in method_files():
                raise unknown("method", name, method_files(), f"{path.name}: methods")
            profile.of("", name, path.name).check(f"{path.name}: methods.{name}")
    for name in profile.models:
        if name not in networks():
            raise unknown("model", name, networks(), f"{path.name}: models")
        profile.of(name, "", path.name).check(f"{path.name}: models.{name}")
    return profile
