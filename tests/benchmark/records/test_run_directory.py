import json
import os
import subprocess
import sys
import textwrap

import pytest

from benchmark.core.errors import KdsegError
from benchmark.records.record import State, read_record, records
from benchmark.records.run_directory import STALE_S, RunDirectory, manifests, write_manifest
from benchmark.spec.runs import Manifest, MethodSetting, Run

RUN = Run(
    dataset="drawn",
    dataset_hash="a",
    protocol="demo",
    protocol_hash="b",
    model="deeplabv3_tiny",
    weights=None,
    teacher=None,
    method=MethodSetting(name="student", version=1, variant="Student", hyper={}),
    overrides={},
    precision="fp32",
    seed=0,
    harness=1,
)


@pytest.fixture
def directory(tmp_path):
    made = RunDirectory(tmp_path, RUN.id)
    made.create(RUN)
    return made


def test_a_run_directory_is_named_by_the_run_and_keeps_its_inputs(directory):
    assert directory.path.name == RUN.id
    assert directory.inputs() == RUN
    directory.create(RUN)


def test_a_directory_of_another_run_is_refused(directory):
    other = RUN.model_copy(update={"seed": 1})
    with pytest.raises(KdsegError, match="is not the run that its folder is named after"):
        RunDirectory(directory.path.parents[1], RUN.id).create(other)


def test_a_run_without_heartbeat_is_stale_whatever_the_clock_did(directory):
    assert directory.status() is None
    directory.write_status(State.RUNNING, 3, 10)
    now = directory.status()
    assert (now.state, now.iteration, now.iterations, now.pid) == (State.RUNNING, 3, 10, os.getpid())
    assert directory.status(now=now.time + STALE_S + 1).state is State.STALE
    assert directory.status(now=now.time - 1e6).state is State.RUNNING


def test_a_second_process_is_told_who_trains(directory):
    code = textwrap.dedent(f"""
        from pathlib import Path
        from benchmark.records.run_directory import RunDirectory
        with RunDirectory(Path({str(directory.path.parents[1])!r}), {RUN.id!r}).lock():
            pass
    """)
    with directory.lock():
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"is being trained by pid {os.getpid()} on" in second.stderr
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_resume_files_are_ordered_by_iteration_and_two_are_kept(directory):
    for iteration in (900, 1000, 100):
        (directory.path / f"resume_{iteration}.pth").write_bytes(b"x")
    assert list(directory.resume_files()) == [100, 900, 1000]
    directory.prune_resume_files()
    assert list(directory.resume_files()) == [900, 1000]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", "not readable as JSON"),
        ("[]", "has schema None, this version reads 1 to 2"),
        ("{", "not readable as JSON"),
        ('{"schema_version": 7}', "has schema 7, this version reads 1 to 2"),
        ('{"schema_version": 1}', "no record of schema 1: 'cost' is missing"),
        ('{"schema_version": 2}', "Field required"),
    ],
)
def test_a_record_that_is_no_record_is_named(tmp_path, content, line):
    file = tmp_path / "record.json"
    file.write_text(content)
    with pytest.raises(KdsegError, match=line) as error:
        read_record(file)
    assert str(file) in str(error.value)


def test_a_folder_without_records_has_none(tmp_path):
    assert records(tmp_path) == []


def test_run_json_is_plain(directory):
    assert json.loads((directory.path / "run.json").read_text())["model"] == "deeplabv3_tiny"


def test_a_heartbeat_that_cannot_be_read_is_a_failed_run_with_its_reason(directory):
    (directory.path / "status.json").write_text("")
    assert directory.status().state is State.FAILED
    assert "status.json: not readable as JSON" in directory.status().message


def test_done_without_a_record_is_waiting(directory):
    directory.write_status(State.DONE, 10, 10)
    assert directory.status().state is State.WAITING
    assert not directory.finished()


def test_a_manifest_that_cannot_be_read_is_named_and_left_out(tmp_path, caplog):
    write_manifest(tmp_path, Manifest(sweep="good", runs=(RUN,)))
    (tmp_path / "sweeps" / "bad.json").write_text("{")
    assert list(manifests(tmp_path)) == ["good"]
    assert "left out: " in caplog.text
