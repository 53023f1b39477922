"""What befalls jobs, on a real Slurm: no run is lost, none done twice, none unequal to undisturbed."""

import os
import random
import signal
import time

import pytest

from tests.slurm.cluster import NODES
from tests.slurm.sweeps import RECIPE, Launch

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm")]


def same_as(undisturbed, launch):
    """Wait for the end, and check that all records are there once and equal; where the last run was resumed."""
    launch.settled()
    assert launch.unequal(undisturbed) == []
    return launch.directory(launch.last).record().provenance.resumed_at


@pytest.mark.parametrize("partition", ["scavenge", "gentle"])
def test_preempted_without_and_with_grace(launch, undisturbed, partition):
    launch.submit(partition=partition)
    pid = launch.hold(launch.last)
    (node,) = launch.nodes()
    thief = ("sbatch", "--partition=main", "--exclusive", f"--nodelist={node}", "--output=/dev/null", "--wrap", "true")
    launch.cluster.run(*thief)
    launch.signalled(pid)
    assert len(same_as(undisturbed, launch)) == 1


def test_timeout(launch, undisturbed):
    launch.submit()
    pid = launch.hold(launch.last)
    launch.cluster.run("scontrol", "update", f"jobid={launch.job()}", "endtime=now+60")
    launch.signalled(pid)
    assert len(same_as(undisturbed, launch)) == 1


def test_requeued_by_hand(launch, undisturbed):
    launch.submit()
    pid = launch.hold(launch.last)
    launch.cluster.run("scontrol", "requeue", launch.job())
    launch.signalled(pid)
    assert len(same_as(undisturbed, launch)) == 1


def test_slurmd_killed_and_back(launch, undisturbed):
    launch.submit()
    pid = launch.hold(launch.last)
    (node,) = launch.nodes()
    launch.cluster.kill(f"slurmd-{node}")
    os.kill(pid, signal.SIGCONT)
    launch.cluster.wait(lambda: launch.directory(launch.last).record(), "the record")
    launch.cluster.start()
    assert same_as(undisturbed, launch) == ()


def test_node_lost_while_the_first_copy_still_runs(cluster, undisturbed, tmp_path):
    """Slurm takes the node for dead and starts the job on the other one; the first process knows nothing of it.

    It is the teacher's job, and its students start when the second copy is done: either copy's failure would lose them.
    """
    launch = Launch(cluster, tmp_path)
    launch.submit()
    teacher = launch.runs[0]
    first = launch.hold(teacher)
    (node,), (other,) = launch.nodes(), {*NODES} - {*launch.nodes()}
    launch.cluster.kill(f"slurmd-{node}")
    launch.cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=lost")
    launch.cluster.wait(lambda: launch.nodes() == [other], "the second copy")
    launch.cluster.wait(lambda: launch.directory(teacher).status().pid != first, "its heartbeat")
    os.kill(first, signal.SIGCONT)
    same_as(undisturbed, launch)
    assert launch.directory(teacher).record().provenance.attempt == 2


def test_controller_and_database_killed(launch, undisturbed):
    launch.submit()
    pid = launch.hold(launch.last)
    launch.cluster.kill("slurmctld")
    launch.cluster.kill("slurmdbd")
    assert launch.states()[launch.last.id] == "running"
    os.kill(pid, signal.SIGCONT)
    launch.cluster.wait(lambda: launch.directory(launch.last).record(), "the record")
    launch.cluster.start()
    assert same_as(undisturbed, launch) == ()


def test_killed_at_random_moments_and_retried(launch, undisturbed):
    """SIGKILL, as if out of memory, anywhere from the first iteration to the record."""
    chance = random.Random(6)
    launch.submit()
    for _ in range(3):
        pid = launch.reached(launch.last, chance.randrange(RECIPE["data.iterations"] - 5)).pid
        time.sleep(chance.uniform(0, 0.3))
        os.kill(pid, signal.SIGKILL)
        launch.ended()
        assert launch.states()[launch.last.id] == "failed (error)"
        launch.retry("error")
    assert len(same_as(undisturbed, launch)) >= 1


def test_without_accounting_a_killed_job_is_noticed_too(launch_without_accounting, undisturbed):
    launch = launch_without_accounting
    launch.submit()
    os.kill(launch.hold(launch.last), signal.SIGKILL)
    launch.ended()
    assert launch.states()[launch.last.id] == "failed (error)"
    launch.retry("error")
    assert len(same_as(undisturbed, launch)) == 1


def test_a_killed_teacher_cancels_its_students_and_all_are_retried(cluster, undisturbed, tmp_path):
    launch = Launch(cluster, tmp_path)
    launch.submit()
    teacher, *students = launch.runs
    os.kill(launch.hold(teacher), signal.SIGKILL)
    launch.ended()
    failed = {teacher.id: "failed (error)"} | {run.id: "failed (cancelled)" for run in students}
    assert launch.states() == failed
    launch.retry("error")
    same_as(undisturbed, launch)


def test_a_diverged_teacher_cancels_its_students_and_is_retried_on_demand_only(cluster, tmp_path):
    launch = Launch(cluster, tmp_path, methods=("kd",), recipe=(("optim.lr", 1e30),))
    launch.submit()
    teacher, *students = launch.runs
    diverged = {teacher.id: "diverged"} | {run.id: "failed (cancelled)" for run in students}
    launch.ended()
    assert launch.states() == diverged
    assert "diverged" in launch.submit()
    assert not cluster.run("squeue", "--noheader")
    launch.retry("diverged")
    assert launch.directory(teacher).record() is None
    assert len(cluster.run("squeue", "--noheader", "--array").splitlines()) == 2
    launch.ended()
    assert launch.states() == diverged
