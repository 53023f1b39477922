"""What the benchmarks of `make bench` share: one JSON file each in results/bench, and a cohort to take apart.

Speed is compared as ratios within one process, in rounds that alternate between what is compared; of these the median
is told, for machines are noisy.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmark.core.environment import code_version, package_versions, processor
from benchmark.core.files import make_folder, write_json
from benchmark.core.paths import ROOT
from benchmark.core.weights import register
from benchmark.method.recipes import method_setting
from benchmark.models import checkpoints
from benchmark.models.build import build_network
from benchmark.records.run_directory import RunDirectory
from benchmark.runtime.device import prepare_process
from benchmark.spec import definitions
from benchmark.spec.networks import network
from benchmark.spec.runs import Execution, Job, Run, TeacherSource, make_run
from benchmark.training.cohort import Cohort

OUT = ROOT / "results" / "bench"
MANY = 100_000
"""Iterations planned for, so that none is the last one, which validates."""


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes to call `work`."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def write_report(out: Path, name: str, setting: Mapping[str, Any], measured: Mapping[str, Any]) -> None:
    """Write `NAME.json` with the machine, how busy it was, and the code."""
    commit, dirty = code_version()
    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "versions": package_versions(),
    }
    make_folder(out)
    report = {"commit": commit, "dirty": dirty, "machine": machine, "setting": dict(setting), **measured}
    write_json(out / f"{name}.json", report)
    print(f"bench: {out / f'{name}.json'}")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table whose first column is text."""
    table = Table(title=title)
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def build_cohort(
    folder: Path, methods: Sequence[str], teacher: str, student: str, crop: tuple[int, int], batch: int
) -> Cohort:
    """A cohort of these methods on the drawn set, at iteration 0; the teacher has random weights."""
    dataset, protocol = definitions.dataset("drawn"), definitions.protocol("demo")
    file = folder / "teacher.pth"
    checkpoints.save(file, {"state_dict": build_network(teacher, len(dataset.classes)).state_dict()})
    files: dict[str, str] = {}
    source = TeacherSource(model=teacher, kind="checkpoint", id=register(files, file))
    scale = max(crop[0] / 90, crop[1] / 120)  # scenes are 96 × 128 pixels: every crop is full
    overrides = {
        "data.crop": list(crop),
        "data.batch": batch,
        "data.scale": [scale, scale],
        "data.iterations": MANY,
        "optim.warmup": 0,
    }

    def run(method: str) -> Run:
        setting = method_setting(method, {})
        learns = source if method != "student" else None
        return make_run(dataset, protocol, network(student), setting, seed=0, teacher=learns, overrides=overrides)

    job = Job(
        runs=tuple(run(method) for method in methods),
        work_dir=str(folder),
        files=files,
        execution=Execution(device="cpu", checkpoint_interval=MANY),
    )
    device = prepare_process(job)
    directories = {each.id: RunDirectory(folder, each.id) for each in job.runs}
    for each in job.runs:
        directories[each.id].create(each)
    cohort = Cohort(job, job.runs, 0, device, lambda: False, directories)
    cohort.said = float("inf")  # it says nothing on the way
    return cohort
