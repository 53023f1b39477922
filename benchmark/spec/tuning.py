"""Tuning runs: those that choose hyper-parameters, on a part of the training images that is held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from benchmark.core.schema import content_hash
from benchmark.spec.runs import Run

KEY, VALUE = "data.select_on", "train-holdout"
"""The override that a tuning run carries."""


def tuning(run: Run) -> bool:
    """Whether a run is there to choose hyper-parameters."""
    return run.overrides.get(KEY) == VALUE


def trials(runs: Iterable[Run]) -> dict[str, int]:
    """How many settings of each method were tried in tuning runs, whatever their seeds; fair where they are equal.

    Methods without a teacher have nothing to choose and are not counted.
    """
    tried = {(run.method.name, content_hash(run.method.hyper)) for run in runs if tuning(run) and run.teacher}
    return dict(sorted(Counter(name for name, _ in tried).items()))
