"""What befalls jobs, on a real Slurm: no run is lost, none done twice, none unequal to undisturbed."""

import os
import signal

import pytest

from tests.slurm.cluster import NODES

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


def test_node_lost_while_the_first_copy_still_runs(launch, undisturbed):
    """Slurm takes the node for dead and starts the job on the other one; the first process knows nothing of it."""
    launch.submit()
    first = launch.hold(launch.last)
    (node,), (other,) = launch.nodes(), {*NODES} - {*launch.nodes()}
    launch.cluster.kill(f"slurmd-{node}")
    launch.cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=lost")
    launch.cluster.wait(lambda: launch.nodes() == [other], "the second copy")
    os.kill(first, signal.SIGCONT)
    same_as(undisturbed, launch)


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


def test_without_accounting_a_killed_job_is_noticed_too(launch_without_accounting, undisturbed):
    launch = launch_without_accounting
    launch.submit()
    os.kill(launch.hold(launch.last), signal.SIGKILL)
    launch.ended()
    assert launch.states()[launch.last.id] == "failed (error)"
    launch.retry("error")
    assert len(same_as(undisturbed, launch)) == 1
