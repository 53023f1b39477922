"""A job's process under what can happen to it: killed, stopped, out of space, not allowed to write."""

import itertools
import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time

import pytest

from benchmark.core.errors import KdsegError
from benchmark.records.record import State
from benchmark.spec.job_file import write_job
from benchmark.training.worker import Exit

FORK = multiprocessing.get_context("fork")


def cohort(world, teacher, iterations):
    return [
        world.run("student", data_iterations=iterations),
        world.run("noisy", teacher=teacher, data_iterations=iterations),
        world.run("kd", model="segformer_tiny", teacher=teacher, data_iterations=iterations),
    ]


def in_a_process(target):
    """Start a function in a fork of this process, so that no time goes by for imports."""
    process = FORK.Process(target=target)
    process.start()
    return process


def killed_before_change(number):
    """Let this process be killed before its so-many-th change of a file, as if from outside.

    A process leaves nothing but files, so all moments between two changes are the same.
    """
    changes = itertools.count(1)

    def watch(event, arguments):
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in ("os.mkdir", "os.link", "os.rename", "os.remove")) and next(changes) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


@pytest.mark.slow
def test_killed_at_thirty_random_moments_and_resumed_is_bit_equal_to_undisturbed(world, teacher):
    runs = cohort(world, teacher, iterations=60)
    world.train(runs, "a")
    chance = random.Random(0)

    def train_until(moment):
        killed_before_change(moment)
        world.train(runs, "b", checkpoint_interval=1)

    for _ in range(30):
        moment = chance.randrange(1, 90)  # about 40 come before the first iteration, 12 in each
        process = in_a_process(lambda moment=moment: train_until(moment))
        process.join()
        assert process.exitcode == -signal.SIGKILL
    world.train(runs, "b", checkpoint_interval=1)
    for run in runs:
        assert world.equal(run, "a", "b")
        scalars = [(world.directory(run, place).path / "scalars.jsonl").read_text() for place in ("a", "b")]
        assert scalars[0] == scalars[1]


@pytest.mark.slow
def test_a_worker_that_is_asked_to_stop_writes_where_it_was(full_world):
    run = full_world.run("student", data_iterations=100000)
    write_job(full_world.folder / "job.json", full_world.job([run], "a"))
    command = [sys.executable, "-m", "benchmark.training.worker", str(full_world.folder / "job.json")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    directory = full_world.directory(run, "a")
    while not ((now := directory.status()) and now.iteration > 0):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == Exit.INTERRUPTED
    assert errors.splitlines()[-1] == "stopped; the same command resumes it"
    assert directory.status().state is State.INTERRUPTED
    assert directory.status().iteration in directory.resume_files()


def test_a_full_disk_is_one_clear_line_and_nothing_is_half_written(world, teacher):
    """A limit on the size of files stands in for the full disk: the first write beyond it fails."""
    runs = cohort(world, teacher, iterations=6)
    world.train(runs, "a")

    def write_no_more_than(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            world.train(runs, "b", checkpoint_interval=2)
        except KdsegError as error:
            (world.folder / "said").write_text(str(error))

    process = in_a_process(lambda: write_no_more_than(200_000))
    process.join()
    said = (world.folder / "said").read_text()
    assert said.endswith("resume_2.pth: cannot be written: File too large")
    assert world.directory(runs[0], "b").status().state is State.FAILED
    folders = [world.directory(run, "b").path for run in runs]
    assert not [file for folder in folders for file in folder.iterdir() if file.suffix in (".tmp", ".pth")]
    world.train(runs, "b", checkpoint_interval=2)
    assert all(world.equal(run, "a", "b") for run in runs)


def test_a_folder_that_may_not_be_written_is_one_clear_line(world):
    run = world.run("student")

    def as_nobody():
        os.chmod(world.folder, 0o555)
        if os.geteuid() == 0:  # root may write everywhere
            os.seteuid(65534)
        try:
            world.train([run], "locked")
        except KdsegError as error:
            if os.getuid() == 0:
                os.seteuid(0)
            os.chmod(world.folder, 0o755)
            (world.folder / "said").write_text(str(error))

    process = in_a_process(as_nobody)
    process.join()
    assert (world.folder / "said").read_text().endswith("cannot be written: Permission denied")


def test_a_clock_that_jumps_changes_nothing(world, monkeypatch):
    run = world.run("student")
    world.train([run], "a")
    jumps = iter([1e9, 5.0, 2e9] * 10_000)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    world.train([run], "b")
    assert world.equal(run, "a", "b")
    assert world.record(run, "b").cost.wall_s < 600


def test_job_files_are_checked(tmp_path, capsys):
    from benchmark.training.worker import main

    file = tmp_path / "job.json"
    file.write_text(json.dumps({"job_schema": 1, "job": {"runs": [], "work_dir": "w", "cohort": 3}}))
    assert main([str(file)]) == Exit.UNUSABLE
    assert capsys.readouterr().err.startswith(
        f"error: {file}: unknown key 'cohort'; known: data_root, execution, files"
    )
