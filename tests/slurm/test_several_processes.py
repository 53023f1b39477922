"""Jobs of several processes, on one node and on two, through our own start by srun (gloo: no GPU is needed)."""

import os
import signal
from pathlib import Path

import pytest

from tests.slurm.sweeps import Launch

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm")]


def process(job, rank):
    """The process of a job that has this rank."""
    wanted = {f"SLURM_JOB_ID={job}", f"SLURM_PROCID={rank}"}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted <= {*(folder / "environ").read_text(errors="replace").split("\0")}:
                return int(folder.name)
        except OSError:
            continue
    raise AssertionError(f"job {job} has no process of rank {rank}")


def test_two_on_one_node_train_what_two_nodes_do_and_one_that_dies_ends_the_job(cluster, undisturbed, tmp_path):
    one, two, killed = (Launch(cluster, tmp_path / name) for name in ("one", "two", "killed"))
    for launch in (one, two, killed):
        launch.adopt_teacher(undisturbed)
    one.submit(tasks_per_node=2)
    one.settled()
    killed.gate(killed.last)
    killed.submit(tasks_per_node=2)
    killed.hold(killed.last)
    os.kill(process(killed.job(), 1), signal.SIGKILL)
    killed.ended()
    assert killed.states()[killed.last.id] == "failed (error)"
    killed.retry("error")
    killed.settled()
    two.submit(nodes=2)
    two.settled()
    assert one.unequal(two) == []
    assert one.unequal(killed) == []
    assert killed.directory(killed.last).record().provenance.resumed_at
