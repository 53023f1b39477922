"""What runs cost before they have run: from records of the same kind where there are some, else from FLOPs. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmark.core.schema import canonical
from benchmark.records.record import Record
from benchmark.spec import definitions
from benchmark.spec.networks import network
from benchmark.spec.runs import Job, Run, run_recipe

SUSTAINED = 10e3
"""GFLOPs per second that a GPU is taken to sustain in training (an A100 in TF32 with data loading: a third to a half
of what it can do at most)."""
BACKWARD = 2
"""A backward pass costs about as much as so many forward passes."""
BYTES = 4
SAVED_GENERATIONS = 2


@dataclass(frozen=True)
class Estimate:
    """What jobs will cost.

    Attributes:
        hours: of one GPU (or of whatever made the records).
        measured: how many of the runs the hours of which come from records.
        runs: how many there are.
        disk_gb: what finished runs leave: weights of the last and of the best iteration, and areas.
        peak_gb: that, and the resume files of all runs, if all were under way at once.
    """

    hours: float
    measured: int
    runs: int
    disk_gb: float
    peak_gb: float

    @property
    def basis(self) -> str:
        """Where the hours come from, in words."""
        if not self.runs:
            return "nothing to run"
        estimated = f"estimated from the networks' FLOPs at {SUSTAINED / 1e3:g} TFLOP/s per GPU"
        if not self.measured:
            return estimated
        return "from records" + (
            "" if self.measured == self.runs else f" for {self.measured} of {self.runs} runs, the others {estimated}"
        )


@dataclass(frozen=True)
class Seconds:
    """Medians per iteration: of a run's own step, and of what its cohort shares."""

    step: float
    shared: float


def measured(records: Iterable[Record]) -> dict[str, Seconds]:
    """What the records say an iteration takes, by kind of run."""
    costs: dict[str, list[Seconds]] = {}
    for record in records:
        cost = record.cost
        if record.result is not None:
            spent = Seconds(cost.devices * cost.step_s, cost.devices * (cost.teacher_s + cost.data_s))
            costs.setdefault(kind(record.inputs), []).append(spent)
    return {
        key: Seconds(statistics.median(s.step for s in some), statistics.median(s.shared for s in some))
        for key, some in costs.items()
    }


def kind(run: Run) -> str:
    """Equal for runs that cost the same per iteration: all but seed, initial weights and hyper-parameters."""
    teacher = run.teacher.model if run.teacher else None
    parts = [run.dataset, run.protocol, run.model, teacher, run.method.name, run.overrides, run.precision]
    return canonical(parts)


def estimate(jobs: Sequence[Job], known: dict[str, Seconds]) -> Estimate:
    """What jobs will cost; `known` comes from `measured`."""
    facts: dict[str, _Facts] = {}
    seconds, from_records, disk, peak = 0.0, 0, 0.0, 0.0
    for job in jobs:
        shared = 0.0
        for run in job.runs:
            key = kind(run)
            if key not in facts:
                facts[key] = _facts(run, known.get(key))
            cost = facts[key]
            from_records += key in known
            seconds, shared = seconds + cost.own_s, max(shared, cost.shared_s)
            disk, peak = disk + cost.kept, peak + cost.kept + cost.resumable
        seconds += shared
    return Estimate(seconds / 3600, from_records, sum(len(job.runs) for job in jobs), disk / 1e9, peak / 1e9)


@dataclass(frozen=True)
class _Facts:
    """What one kind of run costs from start to end: seconds of its own and of its cohort's, and bytes."""

    own_s: float
    shared_s: float
    kept: int
    resumable: int


def _facts(run: Run, seconds: Seconds | None) -> _Facts:
    iterations = run_recipe(run).data.iterations
    step, shared = (seconds.step, seconds.shared) if seconds else (step_seconds(run), teacher_seconds(run))
    return _Facts(step * iterations + validation_seconds(run), shared * iterations, *disk_bytes(run))


def step_seconds(run: Run) -> float:
    """An iteration of the student alone: forward and backward over its batch."""
    return (1 + BACKWARD) * _forward_gflops(run.model, run) / SUSTAINED


def teacher_seconds(run: Run) -> float:
    """The teacher's forward pass over a batch."""
    return _forward_gflops(run.teacher.model, run) / SUSTAINED if run.teacher else 0.0


def validation_seconds(run: Run) -> float:
    """All validations of a run; a picture counts as one training crop, for no plan knows its own size."""
    recipe, protocol = run_recipe(run), definitions.protocol(run.protocol)
    images = definitions.dataset(run.dataset).splits["val"].count
    rounds = -(-recipe.data.iterations // protocol.val_interval)
    return rounds * images * _forward_gflops(run.model, run) / recipe.data.batch / SUSTAINED


def disk_bytes(run: Run) -> tuple[int, int]:
    """What a run keeps, and at most for resuming: two generations of weights with one (SGD) or two (AdamW) moments."""
    dataset, recipe = definitions.dataset(run.dataset), run_recipe(run)
    weights = BYTES * network(run.model).parameters
    areas = 8 * 4 * len(dataset.classes) * dataset.splits["val"].count
    moments = 1 if recipe.optim.optimizer == "SGD" else 2
    return 2 * weights + areas, SAVED_GENERATIONS * (1 + moments) * weights


def _forward_gflops(model: str, run: Run) -> float:
    """GFLOPs of a forward pass of `model` over a batch of the run; cost grows with the number of pixels."""
    facts, data = network(model), run_recipe(run).data
    pixels = data.crop[0] * data.crop[1] / (facts.size[0] * facts.size[1])
    return facts.gflops * pixels * data.batch
