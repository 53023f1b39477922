"""`make bench`: what a distillation step costs, as ratios within one process (JSON in results/bench, and a table).

Rounds alternate between what is compared, and medians are taken, for machines are noisy.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmark import definitions
from benchmark.distiller import Distiller
from benchmark.files import make_folder, register, write_json
from benchmark.networks import network
from benchmark.provenance import code_version, package_versions, processor
from benchmark.recipes import method_setting
from benchmark.runs import Execution, Job, Run, TeacherSource, make_run
from benchmark.store import RunDirectory
from benchmark.teacher import Teacher
from benchmark.toolbox import checkpoints
from benchmark.toolbox.networks import build_network, forward_taps
from benchmark.toolbox.segmentation import task_losses
from benchmark.trainer import Cohort, prepare_process

TEACHER, STUDENT = "segformer_mit_b0", "deeplabv3_mbv2"
OUT = Path(__file__).parent.parent / "results" / "bench"


def main(argv: list[str]) -> int:
    """Measure, print, and write `step.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        measured = measure_step(Path(folder), arguments.rounds, arguments.size, arguments.batch)
    commit, dirty = code_version()
    machine = {"processor": processor(), "threads": torch.get_num_threads(), "versions": package_versions()}
    setting = {"teacher": TEACHER, "student": STUDENT, "size": arguments.size, "batch": arguments.batch}
    report = {"commit": commit, "dirty": dirty, "machine": machine, "setting": setting, **measured}
    make_folder(arguments.out)
    write_json(arguments.out / "step.json", report)
    table = Table(title=f"{TEACHER} → {STUDENT}, {arguments.batch} × {arguments.size}², {processor()}, 1 thread")
    table.add_column("measured")
    table.add_column("median", justify="right")
    for name, value in measured.items():
        table.add_row(name.replace("_", " "), f"{value:.3f}")
    Console().print(table)
    print(f"bench: {arguments.out / 'step.json'}")
    return 0


def measure_step(folder: Path, rounds: int, size: int, batch: int) -> dict[str, float]:
    """A HeteroAKD step against its floor, and the share of the loop's time that is spent outside networks and losses.

    The floor is the teacher's forward pass and the student's forward, task loss, backward and update, and nothing else.
    Both use the same networks and batches.

    Returns:
        `heteroakd_step_s`, `floor_s`, `step_over_floor`, `loop_outside_networks_share`.
    """
    job = _job(folder, size, batch, rounds + 1)
    device = prepare_process(job)
    for run in job.runs:
        RunDirectory(folder, run.id).create(run)
    cohort = Cohort(job, job.runs, 0, device, lambda: False)
    member, plain = cohort.members
    steps, floors, shares = [], [], []
    for batches in cohort.batches():
        prepared = batches[member.protocol.normalisation]
        with _inside_networks() as inside:
            start = time.perf_counter()
            member.step(prepared, cohort.teach(batches))
            steps.append(time.perf_counter() - start)
        outside = steps[-1] - sum(inside) + cohort.timing.data.seconds()[-1]
        shares.append(outside / (steps[-1] + cohort.timing.data.seconds()[-1]))
        floors.append(_seconds(lambda p=prepared: _floor(cohort.teacher.network, plain.student, plain.optimizer, p)))
        if len(steps) > rounds:
            break
    step, floor = statistics.median(steps[1:]), statistics.median(floors[1:])
    ratio = statistics.median(a / b for a, b in zip(steps[1:], floors[1:], strict=True))
    return {
        "heteroakd_step_s": step,
        "floor_s": floor,
        "step_over_floor": ratio,
        "loop_outside_networks_share": statistics.median(shares[1:]),
    }


def _floor(teacher: Any, student: Any, optimizer: Any, batch: Any) -> None:
    """What no implementation can do without."""
    with torch.no_grad():
        forward_taps(teacher, batch.inputs, ("logits",))
    student.train()
    losses = task_losses(student, forward_taps(student, batch.inputs, ("logits",)), batch.target)
    optimizer.update_params(sum(losses.values()))


@contextmanager
def _inside_networks() -> Iterator[list[float]]:
    """Seconds spent in networks, losses, backward and update while it is open."""
    from unittest.mock import patch

    from mmengine.optim import OptimWrapper

    spent: list[float] = []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent.append(time.perf_counter() - start)

        return wrapper

    with (
        patch.object(Teacher, "taps", timed(Teacher.taps)),
        patch.object(Distiller, "forward", timed(Distiller.forward)),
        patch.object(OptimWrapper, "backward", timed(OptimWrapper.backward)),
        patch.object(OptimWrapper, "step", timed(OptimWrapper.step)),
    ):
        yield spent


def _job(folder: Path, size: int, batch: int, iterations: int) -> Job:
    """HeteroAKD and the student alone, at the given size; the teacher has random weights."""
    dataset, protocol = definitions.dataset("drawn"), definitions.protocol("demo")
    file = folder / "teacher.pth"
    checkpoints.save(file, {"state_dict": build_network(TEACHER, len(dataset.classes)).state_dict()})
    files: dict[str, str] = {}
    teacher = TeacherSource(model=TEACHER, kind="checkpoint", id=register(files, file))
    scale = size / 90  # scenes are 96 pixels high: every crop is full
    overrides = {
        "data.crop": [size, size], "data.batch": batch, "data.scale": [scale, scale],
        "data.iterations": iterations, "optim.warmup": 0,
    }  # fmt: skip

    def run(method: str, source: TeacherSource | None) -> Run:
        return make_run(
            dataset, protocol, network(STUDENT), method_setting(method, {}), seed=0, teacher=source, overrides=overrides
        )

    runs = (run("heteroakd", teacher), run("student", None))
    return Job(runs=runs, work_dir=str(folder), files=files, execution=Execution(device="cpu"))


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
