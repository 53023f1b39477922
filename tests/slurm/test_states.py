import pytest

from benchmark.records.record import State
from benchmark.spec.runs import TeacherSource
from slurm.again import chosen_again, put_aside, wanted_causes
from slurm.agenda import Known, agenda
from slurm.queue import Seen
from slurm.states import At, Cause, last_line, run_states
from slurm.submissions import Attempt, Submission, attempts, note, own_folder, submissions

NAME = "test.1"


def submission(world, *runs, **changes):
    base = {
        "sweep": "test",
        "cluster": "ci",
        "profile": "local",
        "name": NAME,
        "job": "7",
        "submitted": 0.0,
        "folder": str(world.folder / "slurm" / NAME),
        "runs": tuple((run.id,) for run in runs),
        "attempts": (1,) * len(runs),
    }
    return Submission(**base | changes)


def slurm(entry, **seen):
    """What Slurm says of the elements of a submission, `e0` for the first."""
    found = {entry.element(int(key[1:])): value for key, value in seen.items()}
    return Known(attempts([entry]), found, {}, "ci")


def state(world, run, now, at=1000.0):
    (found,) = run_states({run.id: run}, world.folder / "a", now, at)
    return found


@pytest.mark.parametrize(
    ("seen", "at", "cause", "message"),
    [
        (Seen("PENDING", NAME, "Priority"), At.QUEUED, None, "Priority"),
        (Seen("PENDING", NAME, "JobHeldUser"), At.QUEUED, None, "JobHeldUser: scontrol release 7"),
        (Seen("PENDING", NAME, "launch failed requeued held"), At.QUEUED, None, "held: scontrol release 7"),
        (Seen("PENDING", NAME, "DependencyNeverSatisfied"), At.QUEUED, None, "its teacher failed"),
        (Seen("RUNNING", NAME, started=990.0), At.RUNNING, None, "starting"),
        (Seen("RUNNING", NAME, started=10.0), At.STALE, None, "no sign of life for 990 s"),
        (Seen("OUT_OF_MEMORY", NAME), At.FAILED, Cause.OOM, "out of memory"),
        (Seen("TIMEOUT", NAME), At.FAILED, Cause.TIMEOUT, "timeout"),
        (Seen("NODE_FAIL", NAME), At.FAILED, Cause.NODE, "node fail"),
        (Seen("CANCELLED", NAME), At.FAILED, Cause.CANCELLED, "cancelled"),
        (Seen("FAILED", NAME, exit_code="0:9"), At.FAILED, Cause.ERROR, "killed by SIGKILL, perhaps out of memory"),
        (Seen("COMPLETED", NAME), At.FAILED, Cause.ERROR, "completed"),
        (Seen("RUNNING", "of-another.1"), At.FAILED, Cause.ERROR, "Slurm no longer knows its job"),
        (None, At.FAILED, Cause.ERROR, "Slurm no longer knows its job"),
    ],
)
def test_slurms_word_becomes_a_state_with_a_cause(world, seen, at, cause, message):
    run = world.run("student")
    found = state(world, run, slurm(submission(world, run), **({"e0": seen} if seen else {})))
    assert (found.at, found.cause) == (at, cause) and message in found.message
    assert found.attention is (at in (At.FAILED, At.STALE) or message not in ("Priority", "starting"))


def test_a_run_that_failed_in_a_job_that_goes_on_has_failed(world):
    run = world.run("student")
    directory = world.directory(run, "a")
    directory.create(run)
    directory.write_status(State.FAILED, 3, 4, message="RuntimeError: CUDA out of memory")
    found = state(world, run, slurm(submission(world, run), e0=Seen("RUNNING", NAME, started=1.0)))
    assert (found.at, found.cause, found.iteration) == (At.FAILED, Cause.OOM, 3)


def test_a_record_goes_before_whatever_slurm_says(world):
    run = world.run("student")
    world.train([run], "a")
    found = state(world, run, slurm(submission(world, run), e0=Seen("FAILED", NAME)))
    assert found.at is At.DONE and found.miou == world.record(run, "a").result.last.miou


def test_only_what_is_neither_done_nor_live_is_launched(world, teacher):
    runs = [world.run("student"), world.run("student", seed=1), world.run("student", seed=2)]
    world.train(runs[:1], "a")
    now = slurm(submission(world, *runs), e1=Seen("PENDING", NAME), e2=Seen("FAILED", NAME))
    found = agenda(runs, {run.id for run in runs}, world.folder / "a", now)
    assert (found.done, list(found.live), found.todo) == (runs[:1], [runs[1].id], runs[2:])
    assert found.live[runs[1].id] == "job 7_1, pending"


def test_retry_takes_failed_runs_and_the_students_that_their_failure_cancelled(world):
    first = world.run(model="segformer_tiny", seed=9)
    taught = world.run("kd", teacher=TeacherSource(model=first.model, kind="run", id=first.id))
    other = world.run("student", seed=3)
    entry = submission(world, first, taught, other)
    now = slurm(entry, e0=Seen("NODE_FAIL", NAME), e1=Seen("CANCELLED", NAME), e2=Seen("FAILED", NAME))
    runs = [first, taught, other]
    assert chosen_again(runs, world.folder / "a", now, wanted_causes("node")) == {first.id, taught.id}
    assert chosen_again(runs, world.folder / "a", now, wanted_causes("error")) == {other.id}
    assert chosen_again(runs, world.folder / "a", now, wanted_causes("oom,timeout")) == set()


def test_a_run_without_a_teacher_is_retried_with_the_students_whose_job_it_shares(world):
    first = world.run(model="segformer_tiny", seed=1)
    taught = world.run("kd", teacher=TeacherSource(model=first.model, kind="run", id=first.id))
    alone = world.run("student")
    entry = submission(world, first, taught, runs=((first.id,), (taught.id, alone.id)))
    now = slurm(entry, e0=Seen("FAILED", NAME), e1=Seen("CANCELLED", NAME))
    again = chosen_again([first, taught, alone], world.folder / "a", now, wanted_causes("error"))
    assert again == {first.id, taught.id, alone.id}


def test_a_diverged_record_is_moved_aside_and_kept(world, teacher):
    run = world.run("poison", teacher=teacher)
    world.train([run], "a")
    folder = world.directory(run, "a").path
    assert chosen_again([run], world.folder / "a", slurm(submission(world, run)), {"diverged"}) == {run.id}
    put_aside([run.id], world.folder / "a")
    assert not (folder / "record.json").exists() and (folder / "record.json.diverged").exists()


def test_a_submission_is_known_by_what_was_noted_last(tmp_path):
    own_folder(tmp_path / "slurm")
    entry = Submission(
        sweep="a",
        cluster="ci",
        profile="p",
        name="a.1",
        folder="f",
        submitted=1.0,
        runs=(("x",), ("y", "z")),
        attempts=(1, 2),
    )
    note(tmp_path, entry)
    assert attempts(submissions(tmp_path)) == {}
    note(tmp_path, entry.model_copy(update={"job": "12"}))
    with (tmp_path / "slurm" / "submissions.jsonl").open("a") as file:
        file.write('{"sweep": "cut o')
    (found,) = submissions(tmp_path)
    assert attempts([found])["z"] == Attempt(found, 1) and attempts([found])["z"].element == "12_1"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("error: no data\nsrun: error: task 0: Exited with exit code 2\n", "error: no data"),
        ("Traceback (most recent call last):\n  File\nValueError: x\n", "ValueError: x"),
        ("slurmstepd: error: Detected 1 oom-kill event(s)\nother\n", "slurmstepd: error: Detected 1 oom-kill event(s)"),
        ("srun: error: only this\n", "srun: error: only this"),
        ("", ""),
    ],
)
def test_the_line_of_a_log_that_tells_the_cause(tmp_path, text, line):
    (tmp_path / "log").write_text(text)
    assert last_line(tmp_path / "log") == line
    assert last_line(tmp_path / "none") == ""
