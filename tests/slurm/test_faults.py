"""What befalls jobs, on a real Slurm: no run is lost, none done twice, none unequal to undisturbed."""

import os
import signal

import pytest

from tests.slurm.cluster import NODES
from tests.slurm.sweeps import Launch

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm")]


def same_as(undisturbed, launch):
    """Wait for the end, and check that all records are there once and equal; where the last run was resumed."""
    launch.settled()
    assert launch.unequal(undisturbed) == []
    return launch.directory(launch.last).record().provenance.resumed_at


@pytest.mark.parametrize("partition", ["scavenge", "gentle"])
def test_preempted_without_and_with_grace(launch, undisturbed, partition):
    launch.gate(launch.last)
    launch.submit(partition=partition)
    pid = launch.hold(launch.last)
    (node,) = launch.nodes()
    thief = ("sbatch", "--partition=main", "--exclusive", f"--nodelist={node}", "--output=/dev/null", "--wrap", "true")
    launch.cluster.run(*thief)
    launch.signalled(pid)
    assert len(same_as(undisturbed, launch)) == 1


def test_timeout(launch, undisturbed):
    launch.gate(launch.last)
    launch.submit(signal_delay_s=270)
    pid = launch.hold(launch.last)
    launch.cluster.run("scontrol", "update", f"jobid={launch.job()}", "endtime=now+300")
    launch.signalled(pid)
    assert len(same_as(undisturbed, launch)) == 1


def test_requeued_by_hand(launch, undisturbed):
    launch.gate(launch.last)
    launch.submit()
    pid = launch.hold(launch.last)
    launch.cluster.run("scontrol", "requeue", launch.job())
    launch.signalled(pid)
    assert len(same_as(undisturbed, launch)) == 1


def test_slurmd_killed_and_back(launch, undisturbed):
    launch.gate(launch.last)
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
    teacher = launch.runs[0]
    launch.gate(teacher)
    launch.submit()
    first = launch.hold(teacher)
    (node,), (other,) = launch.nodes(), {*NODES} - {*launch.nodes()}
    launch.gate(teacher, "after resume_10.pth")
    launch.cluster.kill(f"slurmd-{node}")
    launch.cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=lost")
    second = launch.hold(teacher)
    assert launch.nodes() == [other]
    os.kill(first, signal.SIGCONT)
    launch.gone(first)
    os.kill(second, signal.SIGCONT)
    same_as(undisturbed, launch)
    assert launch.directory(teacher).record().provenance.attempt == 2


def test_controller_and_database_killed(launch, undisturbed):
    launch.gate(launch.last)
    launch.submit()
    pid = launch.hold(launch.last)
    launch.cluster.kill("slurmctld")
    launch.cluster.kill("slurmdbd")
    assert launch.states()[launch.last.id] == "running"
    os.kill(pid, signal.SIGCONT)
    launch.cluster.wait(lambda: launch.directory(launch.last).record(), "the record")
    launch.cluster.start()
    assert same_as(undisturbed, launch) == ()


def test_killed_again_and_again_and_retried(launch, undisturbed):
    """SIGKILL, as if out of memory. All that it leaves are files, so between two of them all moments are the same."""
    moments = (
        "before resume_5.pth", "after resume_5.pth", "before student.pth", "before areas.npz", "before record.json"
    )  # fmt: skip
    for number, moment in enumerate(moments):
        launch.gate(launch.last, moment)
        launch.retry("error") if number else launch.submit()
        os.kill(launch.hold(launch.last), signal.SIGKILL)
        launch.ended()
        assert launch.states()[launch.last.id] == "failed (error)"
    launch.retry("error")
    assert same_as(undisturbed, launch) == (5, 15)


def test_without_accounting_a_killed_job_is_noticed_too(launch_without_accounting, undisturbed):
    launch = launch_without_accounting
    launch.gate(launch.last)
    launch.submit()
    os.kill(launch.hold(launch.last), signal.SIGKILL)
    launch.ended()
    assert launch.states()[launch.last.id] == "failed (error)"
    launch.retry("error")
    assert len(same_as(undisturbed, launch)) == 1


def test_a_killed_teacher_cancels_its_students_and_all_are_retried(cluster, undisturbed, tmp_path):
    launch = Launch(cluster, tmp_path)
    teacher, *students = launch.runs
    launch.gate(teacher)
    launch.submit()
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
