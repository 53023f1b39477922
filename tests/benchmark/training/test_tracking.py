"""What wandb is sent, read back from what it wrote offline, and that nothing depends on it."""

import json
import logging
import struct
import sys

import pytest

from benchmark.records.record import State
from benchmark.training.tracking import Tracker, tracker

KEY = "0123456789abcdef0123456789abcdef01234567"


BLOCK = 32768
"""wandb's file is a LevelDB log: a 7-byte head, then blocks of pieces (checksum, length, kind, bytes)."""


def pieces(content):
    """The records in a .wandb file, as bytes."""
    place, record = 7, b""
    while place + 7 <= len(content):
        left = BLOCK - place % BLOCK
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the end of one
            yield record
            record = b""


def written(folder):
    """The records of the one offline run below a folder, by kind."""
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    found = {}
    for piece in pieces(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(piece)
        kind = record.WhichOneof("record_type")
        found.setdefault(kind, []).append(getattr(record, kind))
    return found


@pytest.mark.slow
def test_a_cohort_leaves_one_offline_run_each_and_the_numbers_it_has_without(
    world, teacher, monkeypatch, caplog, capfd
):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    runs = [world.run("kd", teacher=teacher), world.run("student")]
    world.train(runs, "a")
    world.train(runs, "b", wandb="offline")
    assert all(world.equal(run, "a", "b") for run in runs)
    assert caplog.text.count("wandb sync ") == 2 and "warning" not in caplog.text + capfd.readouterr().err
    for run in runs:
        folder = world.directory(run, "b").path
        found = written(folder)
        (begun,) = found["run"]
        assert (begun.run_id, begun.project, begun.job_type) == (run.id, "kdseg", run.method.name)
        assert begun.run_group == f"drawn/{'segformer_tiny → ' * bool(run.teacher)}deeplabv3_tiny/{run.method.variant}"
        assert {"drawn", "demo", run.method.name, "seed 0"} <= set(begun.tags)
        config = {item.key: json.loads(item.value_json) for item in begun.config.update}
        config = {key: value.get("value", value) if isinstance(value, dict) else value for key, value in config.items()}
        assert config["seed"] == 0 and config["model"] == run.model
        lines = [
            {item.nested_key[0] if item.nested_key else item.key: json.loads(item.value_json) for item in entry.item}
            for entry in found["history"]
        ]
        logged = [json.loads(line) for line in (folder / "scalars.jsonl").read_text().splitlines()]
        assert {line["_step"] for line in lines} == {line["iteration"] for line in logged}
        (miou,) = [line["mIoU"] for line in lines if "mIoU" in line]
        assert miou == world.record(run, "b").result.last.miou
        assert not any(KEY.encode() in file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_without_wandb_it_says_so_once_and_goes_on(world, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    made = tracker(world.run(), world.folder, "offline")
    made.log({"iteration": 1, "loss": 2.0})
    made.finish(State.DONE)
    assert caplog.messages == [
        "warning: wandb: ImportError: is not installed; pip install wandb; the run goes on without it"
    ]


def test_a_failure_of_wandb_ends_only_the_tracking(world, monkeypatch, caplog):
    class Broken:
        def log(self, values, step):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        "benchmark.training.tracking.WandbTracker._begin", lambda self, run, folder: setattr(self, "run", Broken())
    )
    made = tracker(world.run(), world.folder, "offline")
    for iteration in (1, 2):
        made.log({"iteration": iteration, "loss": 2.0})
    made.finish(State.DONE)
    assert caplog.text.count("warning: wandb: OSError") == 1


def test_off_and_on_other_ranks_nothing_is_imported(world, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert type(tracker(world.run(), world.folder, "off")) is Tracker
    assert type(tracker(world.run(), world.folder, "online", writes=False)) is Tracker
