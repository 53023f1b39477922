"""`kdseg submit` on a real Slurm under faults: each run is launched exactly once, or none is and one line says why."""

import signal
import stat
from collections import Counter

import pytest

from slurm.submissions import submissions
from tests.slurm.cluster import PATIENCE_S
from tests.slurm.conftest import ARRAY
from tests.slurm.sweeps import Launch

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm")]

MANY = ("student", {"name": "kd", "tau": [1 + index / 4 for index in range(ARRAY + 3)]})
"""More students than one array holds."""


@pytest.fixture
def waiting(cluster, tmp_path):
    """A sweep of many runs, on a cluster that starts no job: the queue is all that is looked at here."""
    cluster.run("scontrol", "update", "partitionname=main", "state=down")
    yield Launch(cluster, tmp_path, MANY)
    cluster.run("scontrol", "update", "partitionname=main", "state=up")


def queued(launch):
    """How often each run is in the queue, and the sizes of the arrays, by what Slurm itself says.

    Jobs of other tests do not count: a killed controller forgets that they were cancelled.
    """
    elements = launch.cluster.run("squeue", "--noheader", "--array", "--format=%i|%j").split()
    entries = {entry.name: entry for entry in submissions(launch.work_dir)}
    found, sizes = Counter(), Counter()
    for line in elements:
        element, _, name = line.partition("|")
        if name in entries:
            sizes[name] += 1
            found.update(entries[name].runs[int(element.partition("_")[2] or 0)])
    return found, sorted(sizes.values())


def once(launch):
    """What `queued` says where every run waits exactly once."""
    return {run.id: 1 for run in launch.runs}


def shim(folder, text):
    """A `sbatch` that does something of its own around the real one; $PPID is the process that submits."""
    folder.mkdir()
    (folder / "sbatch").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "sbatch").chmod(stat.S_IRWXU)
    return folder


def test_more_jobs_than_an_array_may_have(waiting):
    waiting.submit("--cohort", "1")
    runs, sizes = queued(waiting)
    assert runs == once(waiting)
    assert sizes == [2, 3, ARRAY]
    assert "nothing to submit" in waiting.submit("--cohort", "1")
    assert queued(waiting)[0] == once(waiting)


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_between_chunks_and_run_again(waiting, when):
    """Killed at its second sbatch, before that says a word: Slurm has the array (`after`), or it has not (`before`)."""
    real = '/usr/bin/sbatch "$@" >/dev/null;' if when == "after" else ""
    count = waiting.folder / "count"
    second = f'echo x >>{count}; [ $(wc -l <{count}) = 2 ] || exec /usr/bin/sbatch "$@"; {real} kill -KILL $PPID'
    path = shim(waiting.folder / "bin", second)
    process = waiting.start(*waiting.submission("--cohort", "1"), path=path)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGKILL
    assert queued(waiting)[1] == ([2] if when == "before" else [2, ARRAY])
    waiting.submit("--cohort", "1")
    assert queued(waiting)[0] == once(waiting)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"partition": "nowhere"}, "invalid partition specified: nowhere"),
        ({"account": "nobody"}, "Invalid account"),
        ({"nodes": 9}, "Requested node configuration is not available"),
    ],
)
def test_what_slurm_refuses_is_one_line_and_nothing_is_queued(waiting, wrong, said):
    output = waiting.submit(code=2, **wrong)
    summary, line = output.splitlines()
    assert summary.startswith("sweep faults: 16 runs") and line.startswith("error: ") and said.lower() in line.lower()
    assert queued(waiting)[0] == {}
    waiting.submit()
    assert queued(waiting)[0] == once(waiting)


def test_without_a_controller_it_says_so_and_nothing_is_queued(waiting):
    waiting.cluster.kill("slurmctld")
    output = waiting.submit(code=2)
    waiting.cluster.start()
    (line,) = output.splitlines()
    assert line.startswith("error: ") and "slurm" in line.lower()
    assert queued(waiting)[0] == {}
