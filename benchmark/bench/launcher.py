"""`make bench`: what the launcher itself takes, after imports, for sweeps of thousands of runs.

Slurm's commands are stood in for by scripts that answer at once, so that the time is ours; processor seconds of this
process and its commands stand beside the wall clock's, which a busy machine stretches. Where there is a cluster, jobs
are also sent through it, beside a bare sbatch.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmark.cli.__main__ import parser
from benchmark.core.environment import code_version, package_versions, processor
from benchmark.core.errors import KdsegError
from benchmark.core.files import make_folder, write_json
from benchmark.core.paths import ROOT
from benchmark.records.record import SCHEMA, State
from benchmark.records.run_directory import RunDirectory, write_manifest
from benchmark.spec.runs import Execution
from benchmark.sweeps.plan import Sweep, cohorts, plan_sweep
from slurm import queue
from slurm.arrays import arrays
from slurm.profiles import Resources
from slurm.submissions import Submission, note, own_folder
from slurm.submit import SubmitRequest, submit

OUT = ROOT / "results" / "bench"
PER_SEED = 20
COMMANDS = {
    "scontrol": 'printf "ClusterName = bench\\nMaxArraySize = 1001\\nAccountingStorageType = none\\n"',
    "squeue": 'cat "$(dirname "$0")/queue" 2>/dev/null || true',
    "sbatch": 'echo "Submitted batch job $$"',
    "sacct": "exit 1",
    "srun": "exit 0",
}
"""What stands in for Slurm."""


def main(argv: list[str]) -> int:
    """Measure, print, and write `launcher.json`."""
    options = argparse.ArgumentParser(prog="python -m benchmark.bench.launcher", description=__doc__)
    options.add_argument("--submit", type=int, default=1000, help="runs to submit")
    options.add_argument("--runs", type=int, default=10_000, help="runs to plan and to show")
    options.add_argument("--jobs", type=int, default=10, help="jobs to send through a cluster")
    options.add_argument("--out", type=Path, default=OUT)
    arguments = options.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with stand_in(folder):
            measured = {
                "plan": measure_plan(folder, arguments.runs),
                "submit": measure_submit(folder, arguments.submit),
                "status": measure_status(folder, arguments.runs),
            }
    commit, dirty = code_version()
    machine = {"processor": processor(), "versions": package_versions(), "load": os.getloadavg()[0]}
    report = {
        "commit": commit,
        "dirty": dirty,
        "machine": machine,
        **measured,
        "cluster": measure_cluster(arguments.jobs),
    }
    make_folder(arguments.out)
    write_json(arguments.out / "launcher.json", report)
    Console().print_json(json.dumps(report | {"machine": processor()}))
    print(f"bench: {arguments.out / 'launcher.json'}")
    return 0


def measure_plan(folder: Path, count: int) -> dict[str, float]:
    """`kdseg plan` of a sweep of about `count` runs."""
    file = _sweep_file(folder, "planned", count)
    return _timed("plan", str(file), "--work-dir", str(folder / "plan")) | {"runs": _size(count)}


def measure_submit(folder: Path, count: int) -> dict[str, float]:
    """`kdseg submit` of about `count` runs, each a job of its own."""
    file = _sweep_file(folder, "submitted", count)
    options = ("--cohort", "1", "--profile", "local", "--work-dir", str(folder / "submit"))
    return _timed("submit", str(file), *options) | {"runs": _size(count)}


def measure_status(folder: Path, count: int) -> dict[str, float]:
    """`kdseg status` of about `count` runs: half of them done, the others in the queue or running."""
    plan = plan_sweep(_sweep("shown", count))
    work_dir = folder / "status"
    write_manifest(work_dir, plan.manifest)
    own_folder(work_dir / "slurm")
    ids = [run.id for run in plan.manifest.runs]
    for index, id_ in enumerate(ids):
        directory = RunDirectory(work_dir, id_)
        directory.path.mkdir(parents=True)
        if index % 2:
            result = {"last": {"miou": 50.0, "iou": {str(number): 50.0 for number in range(150)}}}
            record = {"schema_version": SCHEMA, "id": id_, "outcome": "done", "iterations": 400, "result": result}
            (directory.path / "record.json").write_text(json.dumps(record))
        else:
            directory.write_status(State.RUNNING, 100, 400, seconds_per_iteration=0.1)
    elements = []
    for start in range(0, len(ids), 1000):
        part = ids[start : start + 1000]
        entry = Submission(
            sweep="shown",
            cluster="bench",
            profile="local",
            name=f"shown.{start}",
            job=str(start + 1),
            folder=str(folder),
            submitted=time.time() - 60,
            runs=tuple((id_,) for id_ in part),
            attempts=(1,) * len(part),
        )
        note(work_dir, entry)
        elements += [f"{entry.element(i)}|RUNNING|N/A|None|{entry.name}" for i in range(0, len(part), 2)]
    (folder / "queue").write_text("\n".join(elements) + "\n")
    return _timed("status", "shown", "--work-dir", str(work_dir)) | {"runs": len(ids)}


def measure_cluster(count: int) -> dict[str, Any]:
    """Seconds per job on a real cluster, one job after the other: ours (its runs are done already), and a bare srun."""
    try:
        limits = queue.limits()
        if " UP" not in queue.call("scontrol", "ping"):
            return {"left_out": "the controller of the cluster does not answer"}
    except KdsegError as error:
        return {"left_out": str(error)}
    with tempfile.TemporaryDirectory(dir=Path.home()) as temporary:
        folder = Path(temporary)
        jobs = cohorts(plan_sweep(_sweep("cluster", 20)), folder, None, Execution(), 1)[:1] * count
        empty = [job.model_copy(update={"runs": ()}) for job in jobs]
        resources = Resources(mem_gb=1, timeout_min=30)
        job_arrays = arrays([(job, resources) for job in empty], [], limits.array, 1)
        bare = ["sbatch", f"--array=0-{count - 1}%1", "--mem=1G", "--output=/dev/null", "--wait", "--wrap", "srun true"]
        start = time.perf_counter()
        subprocess.run(bare, check=True, capture_output=True, cwd=folder)
        bare_s = (time.perf_counter() - start) / count
        names: list[str] = []
        start = time.perf_counter()
        batch = SubmitRequest("cluster", "local", folder, limits, job_arrays, {}, {})
        submit(batch, None, lambda entry, _: names.append(entry.job))
        while any(seen.live for key, seen in queue.poll([]).items() if key.partition("_")[0] in names):
            time.sleep(0.05)
        ours_s = (time.perf_counter() - start) / count
    return {"jobs": count, "ours_s_per_job": ours_s, "bare_s_per_job": bare_s, "overhead_s_per_job": ours_s - bare_s}


@contextmanager
def stand_in(folder: Path) -> Iterator[None]:
    """Put scripts that answer at once before Slurm's commands."""
    for name, text in COMMANDS.items():
        file = folder / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}:{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before


def _timed(*command: str) -> dict[str, float]:
    """Wall and processor seconds of a command in this process; what it prints goes nowhere."""
    arguments = parser().parse_args(list(command))
    wall, spent = time.perf_counter(), _processor_seconds()
    with Path(os.devnull).open("w") as nowhere, _redirected(nowhere):
        arguments.function(arguments)
    return {"wall_s": time.perf_counter() - wall, "processor_s": _processor_seconds() - spent}


@contextmanager
def _redirected(stream: Any) -> Iterator[None]:
    before, sys.stdout = sys.stdout, stream
    try:
        yield
    finally:
        sys.stdout = before


def _processor_seconds() -> float:
    """Of this process and of the commands that it waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _sweep(name: str, count: int) -> Sweep:
    """A sweep of two pairs, ten settings, and as many seeds as make about `count` runs."""
    return Sweep.model_validate(
        {
            "name": name,
            "dataset": "drawn",
            "protocol": "demo",
            "pairs": [{"teacher": "segformer_small", "student": s} for s in ("resnet_tiny", "deeplabv3_tiny")],
            "methods": [
                "student",
                "kd",
                "cwd",
                {"name": "heteroakd", "lambda2": [0.1, 0.5, 1.0, 5.0, 10.0, 20.0, 50.0]},
            ],
            "seeds": list(range(max(1, count // PER_SEED))),
        }
    )


def _size(count: int) -> int:
    return len(plan_sweep(_sweep("size", count)).manifest.runs)


def _sweep_file(folder: Path, name: str, count: int) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps(_sweep(name, count).model_dump(mode="json", exclude_defaults=True)))
    return file


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
