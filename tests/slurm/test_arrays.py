import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.spec.runs import Job
from slurm.arrays import arrays, divided
from slurm.profiles import Resources

SMALL, LARGE = Resources(), Resources(mem_gb=64)


@pytest.fixture
def jobs(world, teacher):
    """Two teachers' jobs, and three students of the first."""
    runs = [world.run(model="segformer_tiny"), world.run(model="segformer_tiny", seed=1)]
    runs += [world.run("kd", teacher=teacher, seed=seed) for seed in (0, 1, 2)]
    return [Job(runs=(run,), work_dir="work") for run in runs]


def plan(jobs, resources=SMALL, **changes):
    given_ = {"unfinished": [run.id for job in jobs for run in job.runs], "largest": 1000, "parallel": 100} | changes
    return arrays([(job, resources) for job in jobs], **given_)


def test_students_are_an_array_of_their_own_that_waits_for_their_teacher_alone(jobs):
    first, second = plan(jobs)
    assert (first.jobs, first.teacher) == (tuple(jobs[:2]), None)
    assert (second.jobs, second.teacher) == (tuple(jobs[2:]), jobs[2].teacher.id)


def test_nobody_waits_for_a_teacher_that_is_done(jobs):
    (only,) = plan(jobs[2:], unfinished=[job.runs[0].id for job in jobs[2:]])
    assert only.teacher is None and len(only.jobs) == 3


def test_one_array_per_resource_class(jobs):
    pairs = list(zip(jobs, [SMALL, LARGE, SMALL, LARGE, SMALL], strict=True))
    found = arrays(pairs, unfinished=[jobs[0].runs[0].id, jobs[2].teacher.id], largest=1000, parallel=100)
    assert [(array.resources, len(array.jobs)) for array in found] == [(SMALL, 1), (LARGE, 1), (SMALL, 2), (LARGE, 1)]


@given(count=st.integers(1, 40), largest=st.integers(1, 12), parallel=st.integers(1, 50))
def test_chunks_hold_each_job_once_and_never_more_run_than_allowed(count, largest, parallel):
    jobs = [Job.model_construct(runs=(), work_dir=str(index)) for index in range(count)]
    found = plan(jobs, largest=largest, parallel=parallel, unfinished=[])
    assert [job for array in found for job in array.jobs] == jobs
    assert all(len(array.jobs) <= largest for array in found)
    lanes = {}
    for place, array in enumerate(found):
        lane = place if array.after is None else lanes[array.after]
        lanes[place] = lane
    at_once = {
        lane: max(found[place].parallel for place, other in lanes.items() if other == lane) for lane in lanes.values()
    }
    assert sum(at_once.values()) <= parallel


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.integers(0, 60))
def test_shares_use_all_that_is_allowed(sizes, more):
    total = len(sizes) + more
    shares = divided(total, sizes)
    assert sum(shares) == min(total, sum(sizes))
    assert all(1 <= share <= size for share, size in zip(shares, sizes, strict=True))
