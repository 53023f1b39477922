"""All that tables and reports are functions of: finished runs, what sweeps expect, and the pairs they make up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.core.errors import KdsegError
from benchmark.records.areas import read_areas
from benchmark.records.record import Record
from benchmark.results.bootstrap import blocks
from benchmark.results.entries import Entry, PairEntries, pairs
from benchmark.results.frame import MISSING, frame_rows, records_frame, students, with_delta, with_missing
from benchmark.spec import definitions
from benchmark.spec.runs import Manifest

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Areas:
    """A run's areas (images, 4, classes), and name and block of each image."""

    names: list[str]
    values: np.ndarray
    blocks: list[str]


@dataclass(frozen=True)
class Results:
    """What is known of all runs.

    Attributes:
        frame: one row a run, finished or expected, with Δ.
        rows: the same, by id.
        pairs: the pairs of networks that they make up, in a stable order.
        sweeps: name of each sweep that was started -> ids of its runs.
        find_areas: file with the areas of a run, or None.
    """

    frame: pd.DataFrame
    rows: dict[str, dict[str, Any]]
    pairs: tuple[PairEntries, ...]
    sweeps: dict[str, frozenset[str]]
    find_areas: Callable[[str], Path | None]

    @classmethod
    def of(
        cls,
        records: Sequence[Record],
        manifests: Iterable[Manifest] = (),
        reason: Callable[[str], str] | None = None,
        find_areas: Callable[[str], Path | None] = lambda run_id: None,
    ) -> Results:
        """Results of finished runs.

        Args:
            records: of the finished runs.
            manifests: sweeps whose runs and skips have a place even without a record.
            reason: why the run with an id has no record.
            find_areas: where the areas of a run are; they are read only where a statistic needs them.
        """
        manifests = list(manifests)
        frame = with_delta(with_missing(records_frame(records), manifests, reason))
        sweeps = {manifest.sweep: frozenset(run.id for run in manifest.runs) for manifest in manifests}
        rows = frame_rows(frame)
        every_pair = tuple(pairs(rows, planned=bool(manifests)))
        return cls(frame, {row["id"]: row for row in rows}, every_pair, sweeps, find_areas)

    @cached_property
    def _students(self) -> dict[str, dict[str, Any]]:
        return students(self.rows.values())

    def student(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """The row of the student alone that the Δ of a run is taken against."""
        return self._students.get(row["delta_key"])

    def runs(self, entry: Entry) -> list[dict[str, Any] | None]:
        """The rows of an entry's finished runs, in the order of its seeds; None where there is none."""
        rows = [self.rows.get(run_id) if run_id else None for run_id in entry.ids]
        return [row if row is not None and not row["reason"] else None for row in rows]

    def missing(self, chosen: Iterable[PairEntries]) -> list[dict[str, Any]]:
        """The rows of expected runs of these pairs that have no record."""
        ids = dict.fromkeys(run_id for pair in chosen for entry in pair.entries for run_id in entry.ids if run_id)
        return [self.rows[run_id] for run_id in ids if self.rows[run_id]["outcome"] == MISSING]

    def areas(self, run_id: str) -> Areas | None:
        """The areas of a run, None if they are not there.

        Raises:
            KdsegError: the file cannot be read.
        """
        file = self.find_areas(run_id)
        if file is None or not file.is_file():
            return None
        try:
            names, values = read_areas(file)
        except (OSError, ValueError, KeyError) as error:
            raise KdsegError(f"{file}: cannot be read: {error}") from None
        return Areas(names, values, blocks(names, definitions.dataset(self.rows[run_id]["dataset"])))
