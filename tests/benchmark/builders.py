"""Small valid runs and records for tests of everything that reads records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmark.records.record import Cost, Divergence, Provenance, Record, Result, Scores, State
from benchmark.spec.runs import MethodSetting, Run, TeacherSource

STUDENT_MODEL = "deeplabv3_mbv2"
TEACHER_MODEL = "segformer_mit_b0"
HETEROAKD = {"lambda1": 0.1, "lambda2": 1.0, "kmm": True}


def setting(name: str = "student", variant: str | None = None, **hyper: Any) -> MethodSetting:
    """A method setting; the variant defaults to what differs from nothing: `KD (tau=2.0)`."""
    title = {"student": "Student", "heteroakd": "HeteroAKD"}.get(name, name.upper())
    changes = ", ".join(f"{key}={value}" for key, value in hyper.items())
    return MethodSetting(
        name=name, version=1, variant=variant or title + (f" ({changes})" if hyper else ""), hyper=hyper
    )


def heteroakd(variant: str | None = None, **hyper: Any) -> MethodSetting:
    """A HeteroAKD setting with three of its hyper-parameters."""
    made = setting("heteroakd", variant, **hyper)
    return made.model_copy(update={"hyper": HETEROAKD | hyper})


def run(method: MethodSetting | None = None, seed: int = 0, teacher: TeacherSource | None = None, **more: Any) -> Run:
    """A run of the demo."""
    inputs: dict[str, Any] = {
        "dataset": "drawn",
        "dataset_hash": "d" * 16,
        "protocol": "demo",
        "protocol_hash": "p" * 16,
        "model": STUDENT_MODEL,
        "weights": None,
        "teacher": teacher,
        "method": method or setting(),
        "overrides": {},
        "precision": "fp32",
        "seed": seed,
        "harness": 1,
    }
    return Run(**(inputs | more))


def teacher_run(**more: Any) -> Run:
    """The run a teacher comes from."""
    return run(**({"model": TEACHER_MODEL} | more))


def source(of: Run | None = None) -> TeacherSource:
    """The teacher that is the outcome of a run."""
    of = of or teacher_run()
    return TeacherSource(model=of.model, kind="run", id=of.id)


def record(of: Run, miou: float | None = 50.0, *, commit: str = "a" * 40, dirty: bool = False, **cost: Any) -> Record:
    """The record of a run with this mIoU in percent; `None`: it diverged at iteration 37."""
    scores = (
        None
        if miou is None
        else Scores(
            iteration=200,
            miou=miou,
            macc=miou + 5,
            aacc=miou + 20,
            iou={"sky": miou + 1, "road": miou - 1, "pole": None},
        )
    )
    best = scores and scores.model_copy(update={"iteration": 100, "miou": miou + 0.5})
    costs = {
        "step_s": 0.2,
        "teacher_s": 0.05,
        "data_s": 0.01,
        "wall_s": 60.0,
        "memory_mb": 900.0,
        "parameters": 3740819,
        "extra_parameters": 0,
        "cohort": 4,
        "devices": 1,
    }
    return Record(
        id=of.id,
        outcome=State.DONE if scores else State.DIVERGED,
        inputs=of,
        iterations=200 if scores else 37,
        result=Result(last=scores, best=best, curve=((100, miou + 0.5), (200, miou))) if scores else None,
        divergence=None if scores else Divergence(iteration=37, reason="loss is not finite"),
        cost=Cost(**(costs | cost)),
        provenance=Provenance(
            commit=commit,
            dirty=dirty,
            versions={"torch": "2.13.0"},
            platform="Linux",
            processor="some CPU",
            device="cpu",
            threads=1,
            workers=0,
            deterministic=False,
            list_hashes={"train": "1", "val": "2"},
            images={"train": 300, "val": 80},
            teacher_sha256=None,
            started="2026-01-01T00:00:00+00:00",
            finished="2026-01-01T00:01:00+00:00",
            resumed_at=(),
        ),
        areas_sha256="e" * 64 if scores else None,
        student_sha256="f" * 64 if scores else None,
    )


TEACHER = source()
"""The teacher of `pair_records`."""


def pair_records(
    *settings: tuple[MethodSetting, Sequence[Any]], student: Sequence[Any] = (50.0, 51.0, 52.0)
) -> list[Record]:
    """The teacher, the student alone, and per (setting, mIoU per seed) its runs; the mIoU "absent" makes no record."""
    found = [record(teacher_run(), 70.0)]
    for method, mious in [(None, student), *settings]:
        runs = [run(method, seed, TEACHER if method else None) for seed in range(len(mious))]
        found += [record(each, miou) for each, miou in zip(runs, mious, strict=True) if miou != "absent"]
    return found
