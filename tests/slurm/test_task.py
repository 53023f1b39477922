"""What is in the queue outlives the code that put it there: jobs are files, and pickles hold nothing of ours."""

import os
import pickletools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from submitit.core.utils import DelayedSubmission

import benchmark
from slurm.submit import _task
from tests.slurm.sweeps import Launch

DATA = Path(__file__).parent / "data"
ROOT = Path(benchmark.__path__[0]).parent
OURS = ("benchmark", "baselines", "methods", "slurm")


def test_the_pickle_names_nothing_of_ours(world, tmp_path):
    DelayedSubmission(_task(tmp_path / "job_0.json", world.job([world.run()]))).dump(tmp_path / "task.pkl")
    strings = [
        value for _, value, _ in pickletools.genops((tmp_path / "task.pkl").read_bytes()) if isinstance(value, str)
    ]
    assert not [text for text in strings if text.partition(".")[0].partition(" ")[0] in OURS]
    assert f"from slurm.task import run; run({str(tmp_path / 'job_0.json')!r})" in strings


def test_a_job_that_was_pickled_whole_ends_in_one_line():
    """As jobs were before they were files: the pickle names classes of ours, which are elsewhere now."""
    code = (
        "import sys, pathlib; from submitit.core.utils import DelayedSubmission as D; D.load(pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(DATA / "job_before_job_files.pkl")], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: this job was queued by an earlier version of kdseg; submit the sweep again\n",
    )


def test_a_job_file_that_cannot_be_read_ends_the_job_in_one_line(tmp_path):
    code = "import sys; from slurm.task import run; run(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "job_0.json")], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path / 'job_0.json'}: no such file\n")


@pytest.mark.slow
@pytest.mark.xdist_group("slurm")
def test_a_queued_and_a_requeued_job_run_after_fields_were_added(cluster, undisturbed, tmp_path, monkeypatch):
    code = tmp_path / "code"
    for package in OURS:
        shutil.copytree(ROOT / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(code), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # else Python takes the modules of the folder that it is started in
    launch = Launch(cluster, tmp_path)
    launch.adopt_teacher(undisturbed)

    cluster.run("scontrol", "update", "partitionname=main", "state=down")
    launch.gate(launch.last)
    launch.submit()
    _add_field(code, "class Job(Frozen):", "    off_protocol: bool = False\n", "    added: int = 7\n", "job.added == 7")
    cluster.run("scontrol", "update", "partitionname=main", "state=up")
    pid = launch.hold(launch.last)
    field = "    patience: float = 1.5\n"
    _add_field(code, "class Execution(Frozen):", "    threads: Positive = 1\n", field, "job.execution.patience == 1.5")
    cluster.run("scontrol", "requeue", launch.job())
    launch.signalled(pid)
    launch.settled()
    assert launch.unequal(undisturbed) == []
    assert len(launch.directory(launch.last).record().provenance.resumed_at) == 1


def _add_field(code: Path, kind: str, before: str, field: str, holds: str) -> None:
    """Add a field with a default to a type that job files hold, and to the code of the job that it `holds`."""
    (file,) = [path for path in (code / "benchmark").rglob("*.py") if kind in path.read_text()]
    _insert(file, before, field)
    _insert(code / "slurm" / "task.py", "    environment = JobEnvironment()\n", f"    assert {holds}\n")


def _insert(file: Path, before: str, line: str) -> None:
    text = file.read_text()
    assert text.count(before) == 1
    file.write_text(text.replace(before, before + line))
