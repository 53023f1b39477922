"""Commands that watch sweeps, `status` and `logs`, and `cancel`, which ends them. They import no torch."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from benchmark.cli.overview import every_run, overview
from benchmark.core.errors import KdsegError, unknown
from benchmark.core.schema import parse, read_json
from benchmark.records.run_directory import RunDirectory, manifests
from benchmark.spec.runs import Job, Run
from slurm import queue
from slurm.agenda import Known, known
from slurm.states import At, RunState, run_states
from slurm.submissions import attempts, submissions

WATCH_S = 10
"""Seconds between two looks; Slurm's controllers serve others too."""


@dataclass(frozen=True)
class Look:
    """What one look at a work directory found; `note` says what could not be asked."""

    states: list[RunState]
    note: str = ""

    @property
    def code(self) -> int:
        """0: all runs are done; 1: something needs attention; 3: not finished yet."""
        if any(state.attention for state in self.states):
            return 1
        return 0 if all(state.at is At.DONE for state in self.states) else 3


def status(arguments: Namespace) -> int:
    """`kdseg status`: what the runs of a sweep are at; the exit code is `Look.code`."""
    found = _look(arguments)
    if arguments.format == "json":
        print(json.dumps([_row(state) for state in found.states]))
        return found.code
    if arguments.watch:
        with Live(_picture(arguments, found), auto_refresh=False, vertical_overflow="visible") as live:
            while found.code == 3 or any(state.at in (At.RUNNING, At.QUEUED) for state in found.states):
                time.sleep(WATCH_S)
                found = _look(arguments)
                live.update(_picture(arguments, found), refresh=True)
    else:
        Console().print(_picture(arguments, found))
    if found.note:
        print(found.note, file=sys.stderr)
    return found.code


def logs(arguments: Namespace) -> int:
    """`kdseg logs`: the end of a run's logs, and where they are."""
    work_dir = arguments.work_dir
    id_ = _run_id(arguments.run, work_dir)
    attempt = attempts(submissions(work_dir)).get(id_)
    if attempt:
        files = [Path(attempt.submission.log(attempt.index, kind)) for kind in ("out", "err")]
    else:
        jobs = sorted((work_dir / "jobs").glob("*.json"), key=lambda file: file.stat().st_mtime)
        files = [file.with_suffix(".log") for file in jobs if id_ in _job_runs(file)][-1:]
    there = [file for file in files if file.is_file()]
    if not there:
        said = f"; job {attempt.element} has not begun" if attempt else ""
        raise KdsegError(f"run {id_}: has no log yet{said}")
    for file in there:
        print(f"==> {file}")
        print("\n".join(file.read_text(errors="replace").splitlines()[-arguments.lines :]))
    return 0


def cancel(arguments: Namespace) -> int:
    """`kdseg cancel`: take a sweep's jobs out of the queue; runs keep their resume files."""
    name = sweep_name(arguments.sweep)
    mine = [entry for entry in submissions(arguments.work_dir) if entry.sweep == name and entry.job]
    if not mine:
        raise unknown("submitted sweep", name, {entry.sweep for entry in submissions(arguments.work_dir)})
    seen = queue.poll([])
    live = {found.name: key.partition("_")[0] for key, found in seen.items() if found.live}
    jobs = [entry.job for entry in mine if live.get(entry.name) == entry.job]
    queue.cancel(jobs)
    print(f"cancelled: {', '.join(jobs)}" if jobs else f"sweep {name}: no job of it runs or waits")
    return 0


def sweep_name(given: str) -> str:
    """The name of a sweep, also if its file is named."""
    return Path(given).stem if given.endswith((".yaml", ".yml")) else given


def _look(arguments: Namespace) -> Look:
    runs = _runs(arguments)
    slurm, note = slurm_view(arguments.work_dir, runs)
    return Look(run_states(runs, arguments.work_dir, slurm), note)


def slurm_view(work_dir: Path, runs: Iterable[str]) -> tuple[Known | None, str]:
    """What Slurm says of submitted runs; None if none was submitted, or if it does not answer, which the text says."""
    if not submissions(work_dir):
        return None, ""
    ended = [id_ for id_ in runs if os.path.exists(f"{work_dir}/runs/{id_}/record.json")]
    try:
        return known(work_dir, queue.cluster(), ended), ""
    except KdsegError as error:
        return None, f"without Slurm, from the runs' own files alone: {error}"


def _runs(arguments: Namespace) -> dict[str, Run]:
    """Run id -> run, of one sweep or of all that is in the work directory."""
    known_sweeps = manifests(arguments.work_dir)
    name = arguments.sweep and sweep_name(arguments.sweep)
    if name and name not in known_sweeps:
        raise unknown("sweep", name, known_sweeps, f"{arguments.work_dir}")
    chosen = [known_sweeps[name]] if name else list(known_sweeps.values())
    runs = {run.id: run for manifest in chosen for run in manifest.runs}
    if not name:
        for file in sorted((arguments.work_dir / "runs").glob("*/run.json")):
            if file.parent.name not in runs:
                try:
                    runs[file.parent.name] = RunDirectory(arguments.work_dir, file.parent.name).inputs()
                except KdsegError as error:
                    print(f"left out: {error}", file=sys.stderr)
    return runs


def _picture(arguments: Namespace, found: Look) -> Any:
    if arguments.all:
        return every_run(found.states)
    title = f"sweep {sweep_name(arguments.sweep)}" if arguments.sweep else str(arguments.work_dir)
    submitted = any(state.element for state in found.states)
    command = shlex.join(["kdseg", "retry", arguments.sweep or "SWEEP", "--work-dir", str(arguments.work_dir)])
    return overview(title, found.states, command if submitted else "")


def _row(state: RunState) -> dict[str, Any]:
    run = state.run
    return {
        "run": state.id,
        "dataset": run.dataset,
        "protocol": run.protocol,
        "model": run.model,
        "teacher": run.teacher.model if run.teacher else None,
        "method": run.method.variant,
        "seed": run.seed,
        "state": str(state.at),
        "cause": state.cause and str(state.cause),
        "message": state.message,
        "iteration": state.iteration,
        "iterations": state.iterations,
        "eta_s": state.eta_s,
        "heartbeat_s": state.heartbeat_s,
        "miou": state.miou,
        "job": state.element or None,
        "log": state.log or None,
    }


def _run_id(given: str, work_dir: Path) -> str:
    """The id of a run that is named by the start of its id, or by its folder."""
    start = Path(given).name
    ids = {path.name for path in (work_dir / "runs").glob("*")}
    ids |= {run.id for manifest in manifests(work_dir).values() for run in manifest.runs}
    fits = sorted(id_ for id_ in ids if id_.startswith(start))
    if len(fits) > 1:
        raise KdsegError(f"run {given}: more than one begins so: {', '.join(fits[:4])}")
    if not fits:
        raise unknown("run", given, ids, str(work_dir))
    return fits[0]


def _job_runs(file: Path) -> set[str]:
    """The ids of the runs of a job file."""
    return {run.id for run in parse(Job, read_json(file), str(file)).runs}
