import pytest

from benchmark.spec.runs import Job
from benchmark.training.worker import Exit
from slurm import local
from slurm.local import run_jobs


class Process:
    """Stands in for a worker: ends after some polls."""

    log: list[tuple[str, str]] = []

    def __init__(self, job, polls=2, code=0):
        self.job, self.polls, self.returncode = job, polls, None
        self.code = code

    def poll(self):
        self.polls -= 1
        if self.polls <= 0 and self.returncode is None:
            self.returncode = self.code
            self.log.append(("end", self.job.id))
        return self.returncode

    def send_signal(self, number):
        self.log.append(("signal", self.job.id))

    def wait(self):
        return 0


@pytest.fixture
def jobs(world, teacher):
    """A teacher's job and two cohorts that need it."""
    runs = [world.run("kd", teacher=teacher, seed=seed) for seed in (0, 1)]
    first = world.run(model="segformer_tiny")
    return [Job(runs=(run,), work_dir=str(world.folder / "a")) for run in (first, *runs)]


@pytest.fixture
def fake(monkeypatch):
    Process.log = []

    def start(job):
        Process.log.append(("start", job.id))
        return Process(job)

    monkeypatch.setattr(local, "_start", start)
    monkeypatch.setattr(local, "POLL_S", 0)
    return Process.log


def test_students_start_after_their_teacher_and_no_more_than_allowed(jobs, fake):
    outcomes = run_jobs(jobs, parallel=2)
    ids = [job.id for job in jobs]
    assert [outcome.exit for outcome in outcomes] == [0, 0, 0]
    assert fake[:2] == [("start", ids[0]), ("end", ids[0])]
    assert {event for event, _ in fake[2:4]} == {"start"}


def test_one_at_a_time_when_asked(jobs, fake):
    run_jobs(jobs, parallel=1)
    assert [event for event, _ in fake] == ["start", "end"] * 3


def test_ctrl_c_reaches_the_jobs_once(jobs, fake):
    def tick():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, parallel=2, tick=tick)
    assert fake == [("start", jobs[0].id), ("signal", jobs[0].id)]


def test_a_failed_job_says_the_last_line_of_its_log(tmp_path, jobs):
    job = jobs[1].model_copy(update={"work_dir": str(tmp_path / "new")})
    (outcome,) = run_jobs([job], parallel=1)
    assert outcome.exit == Exit.UNUSABLE
    assert outcome.message.startswith("error: ") and "\n" not in outcome.message


def test_an_error_here_stops_the_jobs_too(jobs, fake):
    def tick():
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run_jobs(jobs, parallel=2, tick=tick)
    assert fake == [("start", jobs[0].id), ("signal", jobs[0].id)]


def test_a_killed_job_says_by_what(jobs, monkeypatch):
    monkeypatch.setattr(local, "_start", lambda job: Process(job, code=-9))
    monkeypatch.setattr(local, "POLL_S", 0)
    outcomes = run_jobs(jobs[:1], parallel=1)
    assert outcomes[0].message == "killed by SIGKILL (out of memory?); the same command resumes it"


def test_jobs_whose_teacher_failed_are_not_started(jobs, fake, monkeypatch):
    monkeypatch.setattr(local, "_outcome", lambda job, code: local.Outcome(job, Exit.UNUSABLE, "no such folder"))
    monkeypatch.setattr(local.RunDirectory, "record", lambda self: None)
    outcomes = run_jobs(jobs, parallel=2)
    assert [outcome.message for outcome in outcomes] == ["no such folder", local.NO_TEACHER, local.NO_TEACHER]
    assert fake == [("start", jobs[0].id), ("end", jobs[0].id)]
