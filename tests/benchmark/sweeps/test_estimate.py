import pytest

from benchmark.spec.networks import network
from benchmark.spec.runs import Job, run_recipe
from benchmark.sweeps.estimate import (
    SUSTAINED,
    estimate,
    kind,
    measured,
    step_seconds,
    teacher_seconds,
    validation_seconds,
)
from tests.benchmark.builders import record, run


@pytest.fixture
def jobs(world, teacher):
    """The student alone, and one with a teacher, alone and together."""
    plain, taught = world.run("student"), world.run("kd", teacher=teacher)
    return [Job(runs=runs, work_dir="w") for runs in ((plain,), (taught,), (plain, taught))]


def test_without_records_hours_are_the_networks_flops_over_what_a_gpu_sustains(jobs):
    alone = jobs[0].runs[0]
    recipe, facts = run_recipe(alone).data, network(alone.model)
    forward = facts.gflops * recipe.batch * recipe.crop[0] * recipe.crop[1] / (facts.size[0] * facts.size[1])
    assert step_seconds(alone) == pytest.approx(3 * forward / SUSTAINED)
    found = estimate(jobs[:1], {})
    assert found.measured == 0 and found.basis.startswith("estimated from the networks' FLOPs at 10 TFLOP/s")


def test_a_cohort_pays_its_teacher_once(jobs):
    alone, taught, both = (estimate([job], {}).hours for job in jobs)
    assert both == pytest.approx(alone + taught)
    twice = Job(runs=(jobs[1].runs[0], jobs[1].runs[0]), work_dir="w")
    shared = teacher_seconds(jobs[1].runs[0]) * run_recipe(jobs[1].runs[0]).data.iterations / 3600
    assert estimate([twice], {}).hours == pytest.approx(2 * taught - shared)


def test_records_of_the_same_kind_go_before_flops(jobs):
    found = record(run(seed=1))
    known = measured([found])
    same = found.inputs.model_copy(update={"seed": 7})
    assert set(known) == {kind(same)}
    job = Job(runs=(same,), work_dir="w")
    made = estimate([job], known)
    assert (made.measured, made.basis) == (1, "from records")
    assert made.hours == pytest.approx((0.26 * run_recipe(same).data.iterations + validation_seconds(same)) / 3600)
    more = estimate([job, jobs[0]], known)
    assert more.basis.startswith("from records for 1 of 2 runs, the others estimated")


def test_nothing_costs_nothing():
    assert estimate([], {}).basis == "nothing to run"
