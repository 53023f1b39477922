"""Which networks of a work directory an analysis looks at, and how it gets them and their images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from benchmark.core.environment import code_version
from benchmark.core.errors import KdsegError, unknown
from benchmark.core.weights import register
from benchmark.data.datasets import SeededDataset, val_dataset
from benchmark.records.analyses import Origin
from benchmark.records.record import Record
from benchmark.spec import definitions
from benchmark.spec.job_file import read_job
from benchmark.spec.methods import STUDENT
from benchmark.spec.runs import Run, TeacherSource, run_recipe
from benchmark.training.teacher import Teacher, load_source


@dataclass(frozen=True)
class Workplace:
    """Where networks and images are: a work directory, checkpoints by sha256, the data set's folder, the device."""

    work_dir: Path
    files: Mapping[str, str]
    data_root: Path | None
    device: torch.device

    def load(self, source: TeacherSource, student: Run) -> Teacher:
        """A network, frozen and in eval mode, with how it wants its pixels."""
        return load_source(source, student, self.work_dir, self.files, self.device)

    def images(self, run: Run) -> SeededDataset:
        """The validation images of a run's data set, as its protocol shows them to a network."""
        return val_dataset(definitions.dataset(run.dataset), self.data_root, recipe=run_recipe(run).data)


@dataclass(frozen=True)
class Pupils:
    """A teacher with the finished runs that it is compared with: those it taught, and the same students alone."""

    teacher: TeacherSource
    records: tuple[Record, ...]

    @property
    def run(self) -> Run:
        """One of them."""
        return self.records[0].inputs


def known_files(work_dir: Path, teachers: Iterable[Path]) -> dict[str, str]:
    """Checkpoints by sha256: those that the jobs of a work directory used, and those that the user names.

    A job file that cannot be read, as one of an earlier version, names none.
    """
    files: dict[str, str] = {}
    for file in sorted([*work_dir.glob("jobs/*.json"), *work_dir.glob("slurm/*/job_*.json")]):
        with suppress(KdsegError):
            files |= read_job(file).files
    for path in teachers:
        if not path.is_file():
            raise KdsegError(f"--teacher {path}: no such file")
        register(files, path)
    return files


def choose(records: Sequence[Record], dataset: str | None, methods: Sequence[str]) -> list[list[Pupils]]:
    """What to analyse: per data set and protocol, every teacher with its students, in a stable order.

    Args:
        records: those of a work directory; diverged ones have no network.
        dataset: the only one to look at; None: all, where there is no more than one.
        methods: only these, and the student alone; none given: all.

    Raises:
        KdsegError: a name that no record has, several data sets, or no student with a teacher among the records.
    """
    done = [record for record in records if record.result]
    names = sorted({record.inputs.dataset for record in done})
    if dataset is not None and dataset not in names:
        raise unknown("dataset", dataset, names, "records")
    if dataset is None and len(names) > 1:
        raise KdsegError(f"there are records of {', '.join(names)}; name one with --dataset")
    known = sorted({record.inputs.method.name for record in done})
    for method in methods:
        if method not in known:
            raise unknown("method", method, known, "records")
    wanted = {*methods, STUDENT} if methods else set(known)
    shown = [
        record
        for record in done
        if record.inputs.dataset == (dataset or names[0]) and record.inputs.method.name in wanted
    ]
    chosen = list(_pupils(shown))
    if not chosen:
        raise KdsegError("no finished run with a teacher among the records; run a sweep first, or pass --work-dir")
    chosen.sort(key=lambda pupils: (pupils.run.protocol, pupils.teacher.model, pupils.run.model, pupils.teacher.id))
    return [list(group) for _, group in groupby(chosen, key=lambda pupils: pupils.run.protocol)]


def origin(run: Run, images: SeededDataset) -> Origin:
    """What an analysis that looks at `images` of a run's data set is made of."""
    commit, dirty = code_version()
    return Origin(dataset=run.dataset, protocol=run.protocol, list_hash=images.list_hash(), commit=commit, dirty=dirty)


def own(run: Run) -> TeacherSource:
    """A finished run as the source of its own last weights."""
    return TeacherSource(model=run.model, kind="run", id=run.id)


def _pupils(records: Sequence[Record]) -> Iterable[Pupils]:
    taught: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        if source := record.inputs.teacher:
            taught.setdefault((_setting(record.inputs), source.model, source.id), []).append(record)
    for members in taught.values():
        alone = [
            record
            for record in records
            if record.inputs.method.name == STUDENT and _setting(record.inputs) == _setting(members[0].inputs)
        ]
        source = members[0].inputs.teacher
        assert source is not None
        yield Pupils(source, tuple(sorted([*alone, *members], key=_order)))


def _setting(run: Run) -> str:
    """Equal for all runs that are compared with the same students alone."""
    return run.model_copy(update={"seed": 0}).delta_key


def _order(record: Record) -> tuple[Any, ...]:
    run = record.inputs
    return run.method.name != STUDENT, run.method.name, run.method.variant, run.seed
