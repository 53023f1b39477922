"""Several processes train one job: two on CPU, which meet by gloo as torchrun's would."""

import json
import os
import subprocess
import sys

import cloudpickle
import pytest
import torch

from benchmark.core.errors import KdsegError
from benchmark.core.paths import ROOT
from benchmark.method import registry
from benchmark.models import checkpoints
from benchmark.records.areas import read_areas
from benchmark.records.record import State
from benchmark.runtime import distributed
from benchmark.runtime.distributed import ProcessPlace, find_place, job_port
from tests.slurm.cluster import free_ports

CHILD = """
import json, os, sys
import cloudpickle, pytest
from tests.conftest import shrink
target, rank, file = sys.argv[1:]
with pytest.MonkeyPatch.context() as patch:
    shrink(patch)
    try:
        said = cloudpickle.load(open(target, "rb"))(int(rank))
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
with open(file, "w") as out:
    json.dump(said, out)
    out.flush()
    os._exit(0)
"""
SMALL_PARTS = {
    "skd": {"width": 4},
    "maskd": {"stage1_iterations": 2},
    "cirkd": {"gather": True, "group": 0, "pixel_memory": 20, "region_memory": 10},
}
STEP = {
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_NODELIST": "n1",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "12345",
}


def in_ranks(folder, target, world=2):
    """Run `target(rank)` in several new processes, as torchrun would; returns what each returned, or raised as a line.

    They must all end within ten minutes.
    """
    (port,) = free_ports(1)
    (folder / "target").write_bytes(cloudpickle.dumps(target))
    processes = []
    for rank in range(world):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        said = folder / f"said_{rank}.json"
        said.unlink(missing_ok=True)
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", CHILD, str(folder / "target"), str(rank), str(said)],
                env=os.environ | {key: str(value) for key, value in place.items()} | {"PYTHONPATH": str(ROOT)},
            )
        )
    try:
        for process in processes:
            process.wait(timeout=600)
    finally:
        for process in processes:
            process.kill()
    return [json.loads((folder / f"said_{rank}.json").read_text()) for rank in range(world)]


def test_torchrun_and_srun_say_who_we_are():
    torchrun = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "n0", "MASTER_PORT": "29500"}
    assert find_place(torchrun | STEP) == ProcessPlace(1, 2, 1, "n0", 29500)
    assert find_place(STEP) == ProcessPlace(3, 4, 1, "127.0.0.1", job_port(12345))
    assert find_place({}) is None
    batch_script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "12345"}
    assert find_place(batch_script) is None
    with pytest.raises(KdsegError, match="variable 'MASTER_PORT' is missing; start them with torchrun or srun"):
        find_place({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0"})


def test_jobs_and_steps_beside_each_other_meet_at_other_ports():
    ports = [job_port(job, step) for job in range(98_000, 99_000) for step in (0, 1)]
    assert len(set(ports)) == len(ports)
    assert all(20000 <= port < 32768 for port in ports)


def test_without_the_others_the_rendezvous_ends_with_a_clear_line(monkeypatch):
    monkeypatch.setattr(distributed, "RENDEZVOUS_S", 1.0)
    place = ProcessPlace(1, 2, 1, "127.0.0.1", *free_ports(1))
    said = rf"rank 1 of 2: did not meet the other processes at 127.0.0.1:{place.port} within 1 s"
    with (
        pytest.raises(KdsegError, match=said),
        distributed.joined(place, torch.device("cpu")),
    ):
        pass


@pytest.mark.slow
def test_a_batch_that_ranks_cannot_divide_is_refused(world, tmp_path):
    said = in_ranks(tmp_path, lambda _: world.train([world.run("student", data_batch=3)], "a"))
    line = "KdsegError: batch 3: cannot be divided among 2 processes; take a number of them that divides it"
    assert line in said


@pytest.mark.slow
def test_a_run_is_the_same_alone_and_in_company_and_images_are_evaluated_once(world, teacher, tmp_path):
    runs = [
        world.run("student", model="segformer_tiny", data_batch=4),
        world.run("kd", teacher=teacher, data_batch=4),
        world.run("cwd", teacher=teacher, data_batch=4),
    ]
    assert in_ranks(tmp_path, lambda _: world.train(runs, "a")) == [[], []]
    assert in_ranks(tmp_path, lambda _: world.train(runs[1:2], "b")) == [[], []]
    assert world.equal(runs[1], "a", "b")
    record = world.record(runs[1], "a")
    assert record.cost.devices == 2
    world.train(runs, "c")
    names, areas = read_areas(world.directory(runs[1], "a").path / "areas.npz")
    alone = read_areas(world.directory(runs[1], "c").path / "areas.npz")
    assert names == alone[0]
    assert (areas[:, 3] == alone[1][:, 3]).all()
    assert world.record(runs[1], "c").cost.devices == 1


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_rank_drops_the_run_on_both(world, teacher, tmp_path):
    from tests.benchmark.fakes.noisy import Noisy

    fine = world.run("kd", teacher=teacher, data_batch=4)
    whole = Noisy.losses

    def spoilt(method, student, teacher, target, step):
        terms = whole(method, student, teacher, target, step)
        return terms | {"match": terms["match"] * float("nan")} if (distributed.rank(), step) == (1, 2) else terms

    def raising(method, student, teacher, target, step):
        if (distributed.rank(), step) == (1, 2):
            raise ValueError("no such thing")
        return whole(method, student, teacher, target, step)

    def train(place, losses):
        Noisy.losses = losses
        return world.train([broken, fine], place)

    broken = world.run("noisy", teacher=teacher, data_batch=4)
    in_ranks(tmp_path, lambda _: world.train([fine], "a"))
    assert in_ranks(tmp_path, lambda _: train("b", spoilt)) == [[], []]
    failed = f"Noisy seed 0 ({broken.id}): ValueError: no such thing"
    assert in_ranks(tmp_path, lambda _: train("c", raising)) == [[failed]] * 2
    assert world.equal(fine, "a", "b")
    assert world.equal(fine, "a", "c")
    record = world.record(broken, "b")
    assert record.outcome is State.DIVERGED
    assert record.divergence.reason == "loss is not finite: match"
    status = world.directory(broken, "c").status()
    assert (status.state, status.message) == (State.FAILED, "ValueError: no such thing")


@pytest.mark.slow
def test_one_rank_that_dies_ends_the_job_with_a_clear_line(world, tmp_path):
    from benchmark.training.cohort import Cohort

    run = world.run("student", data_iterations=6, data_batch=4)
    teach = Cohort.teach

    def dying(cohort, batches):
        if (distributed.rank(), cohort.iteration) == (1, 3):
            raise KdsegError("this node's disk is gone")
        return teach(cohort, batches)

    def train(_):
        Cohort.teach = dying
        return world.train([run], "a", checkpoint_interval=2)

    said = in_ranks(tmp_path, train)
    line = "rank 0 of 2: lost another process of this job, whose own log says why"
    assert said == [f"KdsegError: {line}", "KdsegError: this node's disk is gone"]
    status = world.directory(run, "a").status()
    assert (status.state, status.message) == (State.FAILED, line)


@pytest.mark.slow
def test_asked_to_stop_on_one_rank_all_stop_and_going_on_is_bit_equal(world, teacher, tmp_path):
    runs = [
        world.run("cirkd", teacher=teacher, hyper=SMALL_PARTS["cirkd"], data_batch=4),
        world.run("mgd", teacher=teacher, data_batch=4),
    ]
    in_ranks(tmp_path, lambda _: world.train(runs, "a"))

    def stopped(rank):
        asked = iter([False, rank == 1])
        world.train(runs, "b", stop=lambda: next(asked))

    assert in_ranks(tmp_path, stopped) == ["Interrupted: "] * 2
    assert list(world.directory(runs[0], "b").resume_files()) == [2]
    assert in_ranks(tmp_path, lambda _: world.train(runs, "b")) == [[], []]
    assert all(world.equal(run, "a", "b") for run in runs)


@pytest.mark.slow
def test_parameters_are_equal_on_all_ranks(world, teacher, tmp_path):
    """Of every method, its parts and what it remembers included."""
    names = [*sorted(set(registry.method_files()) - {"student", "poison"})]
    runs = [world.run(name, teacher=teacher, hyper=SMALL_PARTS.get(name), data_batch=4) for name in names]

    def train(rank):
        from benchmark.training.cohort import Cohort

        finish = Cohort._finish

        def keeping(cohort, member):
            state = dict(member.distiller.named_parameters())
            state |= {name: buffer for name, buffer in member.method.named_buffers() if name.startswith("memory.")}
            file = tmp_path / f"{member.method.name}_{rank}.pth"
            checkpoints.save(file, {name: value.detach() for name, value in state.items()})
            finish(cohort, member)

        Cohort._finish = keeping
        return world.train(runs, "a")

    assert in_ranks(tmp_path, train) == [[], []]
    for method in names:
        ours, theirs = (checkpoints.load(tmp_path / f"{method}_{rank}.pth") for rank in range(2))
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
