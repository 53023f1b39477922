"""A small world to train in: the drawn set with few scenes, tiny networks, and fake methods."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from benchmark.method import registry
from benchmark.method.recipes import method_setting
from benchmark.records.areas import read_areas
from benchmark.records.record import Record
from benchmark.records.run_directory import RunDirectory
from benchmark.spec import definitions
from benchmark.spec.networks import network
from benchmark.spec.runs import Execution, Job, Run, TeacherSource, make_run
from benchmark.training.trainer import train_job

torch.set_num_threads(1)
settings.register_profile("kdseg", deadline=None)  # a busy machine is no failure
settings.load_profile("kdseg")

FAKES = ("noisy", "poison")
SMALL = {"data.iterations": 4, "data.crop": [48, 64], "data.batch": 2, "optim.warmup": 0}


@dataclass(frozen=True)
class World:
    """Plans and trains runs below a folder."""

    folder: Path

    def run(self, method="student", model="deeplabv3_tiny", teacher=None, seed=0, hyper=None, **overrides) -> Run:
        changes = SMALL | {key.replace("_", ".", 1): value for key, value in overrides.items()}
        return make_run(
            definitions.dataset("drawn"),
            definitions.protocol("demo"),
            network(model),
            method_setting(method, hyper or {}),
            seed=seed,
            teacher=teacher,
            overrides=changes,
        )

    def job(self, runs, place="work", **execution) -> Job:
        return Job(runs=tuple(runs), work_dir=str(self.folder / place), execution=Execution(device="cpu", **execution))

    def train(self, runs, place="work", stop=None, **execution) -> list[str]:
        return train_job(self.job(runs, place, **execution), *([stop] if stop else []))

    def directory(self, run: Run, place="work") -> RunDirectory:
        return RunDirectory(self.folder / place, run.id)

    def record(self, run: Run, place="work") -> Record:
        record = self.directory(run, place).record()
        assert record is not None
        return record

    def equal(self, run: Run, place: str, other: str) -> bool:
        """Whether two places hold equal records: result, areas, and the student's weights."""
        ours, theirs = self.record(run, place), self.record(run, other)
        areas = [read_areas(self.directory(run, where).path / "areas.npz") for where in (place, other)]
        same_areas = areas[0][0] == areas[1][0] and np.array_equal(areas[0][1], areas[1][1])
        return (
            ours.result == theirs.result
            and ours.student_sha256 == theirs.student_sha256
            and same_areas
            and ours.areas_sha256 == theirs.areas_sha256
        )


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Give the drawn set 12 + 6 scenes, and register the fake methods."""
    full = definitions.dataset("drawn")
    counts = {"train": 12, "val": 6}
    splits = {name: split.model_copy(update={"count": counts[name]}) for name, split in full.splits.items()}
    small = full.model_copy(update={"splits": splits})
    load, files = definitions.dataset, registry.method_files()
    fakes = {name: f"tests.benchmark.fakes.{name}" for name in FAKES}
    patch.setattr(definitions, "dataset", lambda name: small if name == "drawn" else load(name))
    patch.setattr(registry, "method_files", lambda: files | fakes)


@pytest.fixture(scope="session")
def trained_teacher(tmp_path_factory) -> tuple[Path, TeacherSource]:
    """A finished teacher run: its directory, and how students name it."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        world = World(tmp_path_factory.mktemp("teacher"))
        run = world.run(model="segformer_tiny")
        world.train([run])
    return world.directory(run).path, TeacherSource(model=run.model, kind="run", id=run.id)


@pytest.fixture
def world(trained_teacher, tmp_path, monkeypatch) -> World:
    """A small world in a fresh folder, with the teacher in every place that is used (`a`, `b`, `c`)."""
    shrink(monkeypatch)
    for place in ("a", "b", "c"):
        shutil.copytree(trained_teacher[0], tmp_path / place / "runs" / trained_teacher[1].id)
    return World(tmp_path)


@pytest.fixture
def teacher(trained_teacher) -> TeacherSource:
    """The teacher of the small world."""
    return trained_teacher[1]


@pytest.fixture
def full_world(tmp_path) -> World:
    """The real data set and methods: what a worker process sees as well."""
    return World(tmp_path)
