"""The teacher gate: the teacher's mIoU here, beside the published one, before a student learns from it."""

import shutil

import numpy as np
import pytest
import torch

from benchmark.core.errors import KdsegError
from benchmark.core.files import file_sha256
from benchmark.records.record import TeacherCheck
from benchmark.records.run_directory import RunDirectory
from benchmark.spec import definitions
from benchmark.spec.runs import TeacherSource
from benchmark.training import teacher_check
from benchmark.training.teacher import Teacher
from benchmark.training.trainer import train_job

CPU = torch.device("cpu")


@pytest.fixture
def checkpoint(world, trained_teacher):
    """The teacher's weights as a checkpoint from elsewhere: (how students name it, its path)."""
    file = world.folder / "teacher.pth"
    shutil.copy(trained_teacher[0] / "student.pth", file)
    return TeacherSource(model=trained_teacher[1].model, kind="checkpoint", id=file_sha256(file)), file


def train(world, source, published=None, file=None, place="a", seed=0, **execution):
    """Train a run of KD under a job that knows the published mIoU; returns the run."""
    run = world.run("kd", teacher=source, seed=seed, data_iterations=1)
    job = world.job([run], place, **execution).model_copy(
        update={
            "teacher_miou": {} if published is None else {source.id: published},
            "files": {source.id: str(file)} if file else {},
        }
    )
    assert train_job(job) == []
    return run


def found(world, run, place="a"):
    return world.record(run, place).provenance.teacher_check


def test_a_teacher_that_was_trained_here_is_what_its_record_says(world, teacher, caplog):
    recorded = RunDirectory(world.folder / "a", teacher.id).record().result.last.miou
    run = train(world, teacher)
    assert found(world, run) == TeacherCheck(miou=recorded, published=None, off=False)
    assert "warning" not in caplog.text and not (world.folder / "a/teachers").exists()


def test_a_checkpoint_is_measured_as_its_own_run_was(world, teacher, checkpoint, caplog):
    recorded = RunDirectory(world.folder / "a", teacher.id).record().result.last.miou
    source, file = checkpoint
    run = train(world, source, published=recorded + teacher_check.MARGIN - 0.01, file=file)
    check = found(world, run)
    assert check.miou == recorded and not check.off and "warning" not in caplog.text


def test_a_teacher_that_differs_warns_and_marks_the_record(world, checkpoint, caplog):
    source, file = checkpoint
    miou = found(world, train(world, source, file=file)).miou
    assert "warning" not in caplog.text, "nothing was published, so nothing differs"
    run = train(world, source, published=miou + 0.6, file=file, seed=1)
    assert found(world, run) == TeacherCheck(miou=miou, published=miou + 0.6, off=True)
    said = f"warning: teacher segformer_tiny: has mIoU {miou:.2f} here, published {miou + 0.6:.2f}; more than"
    assert said in caplog.text


def test_strict_stops_before_anything_is_trained(world, checkpoint):
    source, file = checkpoint
    with pytest.raises(KdsegError, match=r"published 99.00; .* \(--strict-teacher\)"):
        train(world, source, published=99.0, file=file, strict_teacher=True)
    run = world.run("kd", teacher=source, data_iterations=1)
    status = world.directory(run, "a").status()
    assert status.state == "failed" and "--strict-teacher" in status.message
    assert world.directory(run, "a").record() is None


class _Images:
    """Validation images that are only named."""

    definition = definitions.dataset("drawn")

    def __init__(self, name="images"):
        self.list_hash = lambda: name


def test_a_measurement_is_kept_by_checkpoint_dataset_and_protocol(world, checkpoint, monkeypatch):
    areas = iter(np.tile([[hit], [100], [100], [100]], (1, 1, 9)) for hit in range(100))
    monkeypatch.setattr(teacher_check, "evaluate", lambda *_: {"": next(areas)})

    def measure(run, sha256="a" * 64, images="images", place="a"):
        teacher = Teacher(torch.nn.Identity(), None, sha256)
        job = world.job([run], place)
        return teacher_check.check_teacher(job, run, definitions.protocol("demo"), teacher, _Images(images), CPU).miou

    run = world.run("kd", teacher=checkpoint[0])
    others = [
        measure(run),
        measure(run, "b" * 64),
        measure(run, images="others"),
        measure(run, place="b"),
        measure(run.model_copy(update={"dataset_hash": "0" * 16})),
        measure(run.model_copy(update={"protocol_hash": "0" * 16})),
    ]
    assert others == [0, 1, 2, 3, 4, 5], "each is measured"
    assert measure(world.run("cwd", teacher=checkpoint[0], seed=1)) == 0, "and not again for another student"


def test_runs_that_choose_hyper_parameters_look_at_no_validation_image(world, teacher):
    run = world.run("kd", teacher=teacher, data_select_on="train-holdout")
    assert teacher_check.check_teacher(world.job([run], "a"), run, None, None, None, CPU) is None
    student = world.run()
    assert teacher_check.check_teacher(world.job([student], "a"), student, None, None, None, CPU) is None
