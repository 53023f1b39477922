import os
import stat
import subprocess

import pytest

from benchmark.core.errors import KdsegError
from benchmark.spec.runs import Job
from slurm.arrays import Array
from slurm.profiles import Resources
from slurm.queue import Limits
from slurm.submissions import submissions
from slurm.submit import SubmitRequest, check_folder, parameters, script, submit

NASTY = "x; touch ${HOME}/owned $(touch owned) `touch owned` ' \" &"


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """Stand-ins for Slurm's commands that give out ids 1, 2, ..."""
    for name, text in {"sbatch": 'echo . >> "$0.n"; echo job $(wc -l < "$0.n")', "srun": "exit 0"}.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


def batch(world, *arrays, folder=None, elements=None):
    work_dir = folder or world.folder / "a"
    return SubmitRequest("test", "local", work_dir, Limits("ci", 1001), arrays, elements or {}, {})


@pytest.fixture
def pair(world, teacher):
    """A teacher's array, and one of two students that wait for it."""
    first = Job(runs=(world.run(model="segformer_tiny"),), work_dir="w")
    students = tuple(Job(runs=(world.run("kd", teacher=teacher, seed=seed),), work_dir="w") for seed in (0, 1))
    return Array((first,), Resources(), 1), Array(students, Resources(), 2, teacher=teacher.id)


def test_each_array_is_noted_and_students_wait_for_their_teachers_element(world, pair, sbatch):
    teacher = pair[0].jobs[0].runs[0].id
    arrays = (pair[0], Array(pair[1].jobs, Resources(), 2, teacher=teacher))
    assert submit(batch(world, *arrays), None, lambda *_: None) == 0
    first, second = submissions(world.folder / "a")
    assert (first.job, second.job, second.element(1)) == ("1", "2", "2_1")
    text = next((world.folder / "a/slurm" / second.name).glob("*_submission.sh")).read_text()
    assert "#SBATCH --dependency=afterok:1\n" in text and "#SBATCH --kill-on-invalid-dep=yes\n" in text
    assert "#SBATCH --array=0-1%2\n" in text


def test_what_the_queue_does_not_take_is_left_and_students_never_without_their_teacher(world, pair, sbatch):
    assert submit(batch(world, *pair), 2, lambda *_: None) == 2
    assert len(submissions(world.folder / "a")) == 1


def test_what_slurm_refuses_is_noted_as_never_submitted(world, pair, sbatch, tmp_path):
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition: x' >&2\nexit 1\n")
    with pytest.raises(KdsegError, match=r"Slurm refused test\.\w+: invalid partition: x"):
        submit(batch(world, *pair), None, lambda *_: None)
    (entry,) = submissions(world.folder / "a")
    assert entry.job == ""


def test_nothing_reaches_a_shell_unquoted(world, pair, tmp_path):
    resources = Resources(partition=NASTY, account=NASTY, srun_args=(NASTY,), additional_parameters={"comment": NASTY})
    folder = tmp_path / NASTY.replace("/", "")
    folder.mkdir()
    text = script(batch(world, folder=folder), Array(pair[1].jobs, resources, 2), "name", "afterok:1")
    stub = 'srun() { printf "%s\\n" "$@"; }\n'
    said = subprocess.run(["bash", "-c", stub + text], capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    assert NASTY in said.splitlines()
    assert not list(tmp_path.glob("**/owned"))
    assert all(line.startswith(("#", "export ", "srun ")) for line in text.splitlines() if line)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_files_follow_the_umask_and_are_never_everybodys_to_write(world, pair, sbatch, mask):
    before = os.umask(mask)
    try:
        submit(batch(world, pair[0]), None, lambda *_: None)
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    place = world.folder / "a" / "slurm"
    for path in (place, *place.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert not mode & stat.S_IWOTH and (path.is_dir() or not mode & mask), (path, oct(mode))


def test_a_work_dir_that_slurm_would_read_as_something_else_is_refused(tmp_path):
    with pytest.raises(KdsegError, match="--work-dir .*: Slurm cannot write logs below a name with %"):
        check_folder(tmp_path / "50%j")


def test_several_processes_end_together_and_each_gets_its_cpus():
    found = parameters(Resources(gpus_per_node=2, nodes=2, cpus_per_task=4), "n", 1, "")
    assert found["ntasks_per_node"] == 2 and found["srun_args"] == ["--kill-on-bad-exit=1", "--cpus-per-task=4"]
    assert "srun_args" not in parameters(Resources(), "n", 1, "")
