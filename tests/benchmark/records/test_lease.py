"""Who trains a run: two real processes, one of which lives on elsewhere."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from benchmark.core.errors import KdsegError
from benchmark.core.paths import ROOT
from benchmark.records import lease
from benchmark.records.lease import LeaseLost, leased

OWNER = """
import sys
from pathlib import Path
from benchmark.records.lease import leased
with leased(Path(sys.argv[1])) as mine:
    print("holds", mine.attempt, flush=True)
    sys.stdin.readline()
    mine.check()
    print("writes", flush=True)
"""


def owner(folder, **environment):
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )
    assert process.stdout.readline().startswith("holds")
    return process


def elsewhere(folder, attempt, age):
    """Let a lease be that of another machine, with a heartbeat so many seconds ago."""
    file = folder / f"lease_{attempt}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"machine": "another", "released": False}))
    os.utime(file, (time.time() - age, time.time() - age))


def test_attempts_are_counted_and_only_the_newest_is_left(tmp_path):
    for number in (1, 2, 3):
        with leased(tmp_path) as mine:
            mine.check()
            assert mine.attempt == number
    assert [file.name for file in tmp_path.iterdir()] == ["lease_3.json"]


def test_a_living_owner_is_named_and_a_killed_one_gives_way_at_once(tmp_path):
    process = owner(tmp_path)
    with pytest.raises(KdsegError, match=f"is being trained by pid {process.pid} on"), leased(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with leased(tmp_path) as mine:
        assert mine.attempt == 2


def test_after_a_restart_of_its_job_the_old_copy_stops_before_it_writes(tmp_path, monkeypatch):
    old = owner(tmp_path, SLURM_JOB_ID="7", SLURM_RESTART_COUNT="0")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with pytest.raises(KdsegError, match="is being trained by"), leased(tmp_path):
        pass
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with leased(tmp_path) as mine:
        said, error = old.communicate("\n")
        assert said == ""
        assert "attempt 2 trains this run now; this one, number 1, stops and leaves its files alone" in error
        mine.check()
    assert [file.name for file in tmp_path.iterdir()] == ["lease_2.json"]


def test_on_another_machine_the_heartbeat_decides(tmp_path, monkeypatch):
    with leased(tmp_path):
        pass
    elsewhere(tmp_path, 1, age=lease.STALE_S + 10)
    with leased(tmp_path) as silent:
        assert silent.attempt == 2
    elsewhere(tmp_path, 2, age=30)
    looks = []

    def pause(seconds):
        """Stands in for the wait between two looks: after the third the owner gives a sign of life."""
        looks.append(seconds)
        if len(looks) == 3:
            os.utime(tmp_path / "lease_2.json")

    monkeypatch.setattr(time, "sleep", pause)
    with pytest.raises(KdsegError, match="is being trained by"), leased(tmp_path):
        pass
    assert looks == [pytest.approx(lease.BEAT_S / 5)] * 3


def test_a_lease_that_was_taken_is_lost(tmp_path):
    with leased(tmp_path) as mine:
        (tmp_path / "lease_2.json").write_text("{}")
        with pytest.raises(LeaseLost, match="attempt 2 trains this run now"):
            mine.check()
