"""Cohorts of everything at once: banks, adversaries, first stages, architectures, points of a figure."""

import pytest
import torch

from benchmark.method import grids
from benchmark.models import checkpoints
from benchmark.records.record import State
from benchmark.training.cohort import Interrupted
from benchmark.training.member import Member
from benchmark.training.teacher import Teacher
from tests.test_conformance import waits

STAGE = 3
SHORT = {"stage1_iterations": STAGE}


class Killed(BaseException):
    """Stands in for SIGKILL: nobody catches it, nothing is written on the way."""


def mixture(world, teacher):
    """Every kind of member; `heteroakd` as three points of Figure 6."""
    return [
        world.run("cirkd", teacher=teacher, hyper={"pixel_memory": 50, "region_memory": 20}),
        world.run("skd", teacher=teacher),
        world.run("maskd", teacher=teacher, hyper=SHORT),
        world.run("maskd", model="segformer_tiny", teacher=teacher, hyper=SHORT),
        world.run("student"),
        world.run("kd", model="segformer_tiny", teacher=teacher),
        *(world.run("heteroakd", teacher=teacher, hyper={"lambda2": weight}) for weight in (1.0, 5.0, 10.0)),
    ]


@pytest.mark.slow
def test_each_run_of_a_mixture_is_bit_equal_alone_in_any_order_and_after_stops(world, teacher):
    runs = mixture(world, teacher)
    for run in runs:
        world.train([run], "a")
    world.train(runs[::-1], "b", workers=2)
    for cut in (2, 2, 3):  # in one first stage, in the other, in training
        calls = iter(range(100))
        with pytest.raises(Interrupted):
            world.train(runs, "c", stop=lambda calls=calls, cut=cut: next(calls) == cut, checkpoint_interval=2)
    world.train(runs[::2], "c", workers=2)
    world.train(runs[1::2], "c")
    for run in runs:
        assert world.equal(run, "a", "b") and world.equal(run, "a", "c"), run.method.variant


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_first_stage_goes_on_where_it_was(world, teacher, how):
    runs = [world.run("student"), world.run("maskd", teacher=teacher, hyper=SHORT)]
    world.train(runs, "a")
    calls = iter(range(100))

    def end():
        if next(calls) < 2:
            return False
        if how == "killed":
            raise Killed
        return True

    with pytest.raises(Interrupted if how == "stopped" else Killed):
        world.train(runs, "b", stop=end, checkpoint_interval=1)
    saved = world.directory(runs[1], "b").resume_files()
    assert list(saved) == [0]
    assert checkpoints.load(saved[0])["prepared"] == ((2, False) if how == "stopped" else (1, False))
    world.train(runs, "b")
    assert all(world.equal(run, "a", "b") for run in runs)
    assert world.record(runs[1], "b").provenance.resumed_at == (0,)


@pytest.mark.slow
def test_a_first_stage_that_is_over_is_not_done_again(world, teacher):
    run = world.run("maskd", teacher=teacher, hyper=SHORT)
    calls = iter(range(100))

    def end():
        if next(calls) == STAGE + 1:
            raise Killed

    with pytest.raises(Killed):
        world.train([run], "a", stop=end)
    assert list(world.directory(run, "a").resume_files()) == [0]
    asked = iter(range(100))
    world.train([run], "a", stop=lambda: next(asked) < 0)
    assert next(asked) == 4, "once an iteration, and not for batches of a stage"


@pytest.mark.slow
@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't")]
)
def test_out_of_memory_ends_the_job_and_a_smaller_cohort_goes_on(world, teacher, monkeypatch, error):
    runs = [world.run("kd", teacher=teacher), world.run("student")]
    world.train(runs, "a")
    step = Member.step

    def short(self, *given):
        if self.iteration == 3:
            raise error
        step(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Member, "step", short)
        with pytest.raises(type(error)):
            world.train(runs, "b", checkpoint_interval=1)
    for run in runs:
        status = world.directory(run, "b").status()
        assert status.state is State.FAILED and status.message.endswith("; a smaller --cohort goes on from here")
        world.train([run], "b")
        assert world.equal(run, "a", "b") and world.record(run, "b").provenance.resumed_at == (3,)


@pytest.mark.slow
def test_records_tell_each_runs_share_and_what_it_would_have_cost_alone(world, teacher):
    runs = [world.run("student"), world.run("kd", teacher=teacher)]
    world.train(runs, "a")
    costs = [world.record(run, "a").cost for run in runs]
    walls = [cost.wall_s for cost in costs]
    assert min(walls) <= sum(cost.share_s for cost in costs) <= max(walls)
    assert all(cost.share_s < cost.single_s < cost.wall_s and cost.gpu_s == 0 for cost in costs)
    world.train(runs[1:], "b")
    alone = world.record(runs[1], "b").cost
    assert alone.share_s == pytest.approx(alone.single_s) == pytest.approx(alone.wall_s)


def test_the_teacher_runs_once_and_its_logits_come_onto_a_grid_once(world, teacher, monkeypatch):
    passes, resized = [], []
    taps, interpolate = Teacher.taps, grids.F.interpolate

    def counted_taps(self, inputs, names):
        passes.append(set(names))
        return taps(self, inputs, names)

    class Functional:
        def __getattr__(self, name):
            return getattr(torch.nn.functional, name)

        def interpolate(self, x, *given, **named):
            resized.append(x.shape)
            return interpolate(x, *given, **named)

    monkeypatch.setattr(Teacher, "taps", counted_taps)
    monkeypatch.setattr(grids, "F", Functional())
    runs = [world.run("kd", teacher=teacher, hyper={"tau": tau}) for tau in (1.0, 2.0, 4.0)]
    runs += [world.run("dist", teacher=teacher), world.run("fitnet", teacher=teacher)]
    world.train(runs, "a")
    assert passes == [{"logits", "pre_classifier"}] * 4
    assert len(resized) == 2 * 4, "the logits and the features, once per iteration each"


def test_a_step_waits_for_the_device_once(world, teacher, monkeypatch):
    """To know whether loss and gradients are finite, before the weights change."""
    found = []
    step = Member.step

    def watched(self, *given):
        with waits() as each:
            step(self, *given)
        found.append(each)

    monkeypatch.setattr(Member, "step", watched)
    sgd = {"optim_optimizer": "SGD", "optim_lr": 0.01}  # Adam counts its steps on the CPU in any case
    world.train([world.run("student", **sgd), world.run("heteroakd", teacher=teacher, **sgd)], "a")
    assert found == [["_local_scalar_dense"]] * 8
