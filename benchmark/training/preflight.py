"""What runs must fulfil before a job trains them; each check raises one clear line."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.core.errors import KdsegError
from benchmark.data.datasets import SeededDataset
from benchmark.method.recipes import make_method
from benchmark.spec import definitions
from benchmark.spec.definitions import Dataset
from benchmark.spec.runs import HARNESS, Run, cohort_key, run_recipe


def check_agreement(runs: Sequence[Run]) -> None:
    """Refuse runs that cannot train together."""

    def key(run: Run, with_teacher: bool) -> str:
        return cohort_key(run, run_recipe(run), with_teacher)

    with_teacher = {key(run, True) for run in runs if run.teacher}
    if len({key(run, False) for run in runs}) > 1 or len(with_teacher) > 1:
        raise KdsegError(
            "job: its runs differ in dataset, data recipe, precision, seed or teacher; they cannot train together"
        )


def check_counts(definition: Dataset, *splits: SeededDataset) -> None:
    """Refuse a split with another number of images than the official one: its results would pass for official ones."""
    for split in splits:
        official = definition.splits[split.split].count
        if split.found != official:
            raise KdsegError(
                f"dataset {definition.name}: {split.split} has {split.found} images here, officially {official}; "
                "complete it, or pass --allow-off-protocol if you mean it: the record then shows it"
            )


def check_current(run: Run) -> None:
    """Refuse a run that was planned with definitions or versions that are no longer these."""
    planned = (run.dataset_hash, run.protocol_hash, run.method.version, run.harness)
    now = (
        definitions.definition_hash(definitions.dataset(run.dataset)),
        definitions.definition_hash(definitions.protocol(run.protocol)),
        make_method(run.method.name, run.method.hyper).version,
        HARNESS,
    )
    names = ("data set", "protocol", "method version", "harness version")
    changed = [name for name, before, after in zip(names, planned, now, strict=True) if before != after]
    if changed:
        raise KdsegError(f"run {run.id}: its {' and '.join(changed)} changed since it was planned; plan it again")
