"""The test cluster itself, and the fixtures: what the other tests of this folder rely on."""

import subprocess

import pytest

from tests.slurm import conftest
from tests.slurm.cluster import ACCOUNT, Cluster, ClusterError, missing_packages


@pytest.mark.xdist_group("slurm")
def test_a_job_sees_two_nodes_and_its_gpus(cluster_without_accounting):
    seen = cluster_without_accounting.run(
        "srun", "--nodes=2", "--gpus-per-node=2", "sh", "-c", "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES"
    )
    assert sorted(seen.split()) == ["0,1", "0,1", "127.0.0.1", "127.0.0.2"]


@pytest.mark.xdist_group("slurm")
def test_sbatch_of_this_process_goes_to_the_cluster_of_the_test(cluster_without_accounting, tmp_path):
    command = ["sbatch", "--parsable", f"--output={tmp_path}/log", "--wrap", "echo here"]
    job = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    cluster_without_accounting.wait(
        lambda: "COMPLETED" in cluster_without_accounting.run("scontrol", "show", "job", job), "the job"
    )
    assert (tmp_path / "log").read_text() == "here\n"


@pytest.mark.slow
@pytest.mark.xdist_group("slurm")
def test_accounts_are_enforced_and_killed_daemons_come_back(cluster):
    run = cluster.run
    run("srun", f"--account={ACCOUNT}", "true")
    with pytest.raises(ClusterError, match="Invalid account"):
        run("srun", "--account=nobody", "true")
    for daemon in cluster.daemons:
        cluster.kill(daemon)
        assert cluster.pid(daemon) is None
    cluster.start()
    run("srun", "--job-name=after", "--nodes=2", "true")
    cluster.wait(lambda: "COMPLETED" in run("sacct", "-nX", "--name=after", "--format=state"), "accounting")


def test_two_clusters_share_no_port(tmp_path):
    clusters = [Cluster(tmp_path / name, accounting=False) for name in "ab"]
    for cluster in clusters:
        cluster._configure()
    ports = [
        line for c in clusters for line in c.conf.read_text().split() if line.startswith(("Port=", "SlurmctldPort="))
    ]
    assert len(ports) == len(set(ports)) == 6


@pytest.mark.parametrize(("required", "outcome"), [("1", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_without_slurm_tests_skip_and_say_what_to_install_and_fail_where_it_is_required(monkeypatch, required, outcome):
    monkeypatch.setattr("tests.slurm.cluster.PATH", "")
    monkeypatch.setenv(conftest.REQUIRED, required)
    with pytest.raises(outcome, match="apt-get install munge slurmctld slurmd"), conftest._cluster(accounting=False):
        pass
    assert "slurm-client" in missing_packages()
