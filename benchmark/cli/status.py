"""`kdseg status`: what the runs of a sweep are at. It imports no torch."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmark.cli.options import Commands, add_command, add_work_dir, sweep_name
from benchmark.core.errors import KdsegError, unknown

if TYPE_CHECKING:
    from benchmark.spec.runs import Run
    from slurm.agenda import Known
    from slurm.states import RunState

WATCH_S = 10
"""Seconds between two looks; Slurm's controllers serve others too."""


class Look(NamedTuple):
    """What one look at a work directory found; `note` says what could not be asked."""

    states: list[RunState]
    note: str = ""

    @property
    def code(self) -> int:
        """0: all runs are done; 1: something needs attention; 3: not finished yet."""
        from slurm.states import At

        if any(state.attention for state in self.states):
            return 1
        return 0 if all(state.at is At.DONE for state in self.states) else 3


def add_commands(commands: Commands) -> None:
    """Declare `kdseg status`."""
    sub = add_command(
        commands,
        status,
        "status",
        "what the runs of a sweep are at; exit code 0: all done, 1: something needs you, 3: not finished",
        "kdseg status demo --work-dir work_dirs/demo",
    )
    sub.add_argument("sweep", nargs="?", help="name of a started sweep (default: all)")
    sub.add_argument("--all", action="store_true", help="a line for every run")
    sub.add_argument("--watch", action="store_true", help="look again every ten seconds, as long as something runs")
    sub.add_argument("--format", choices=("table", "json"), default="table")
    add_work_dir(sub)


def status(arguments: Namespace) -> int:
    """`kdseg status`: what the runs of a sweep are at; the exit code is `Look.code`."""
    from rich.console import Console
    from rich.live import Live

    from slurm.states import At

    look = _look(arguments)
    if arguments.format == "json":
        print(json.dumps([_row(state) for state in look.states]))
        return look.code
    if arguments.watch:
        with Live(_picture(arguments, look), auto_refresh=False, vertical_overflow="visible") as live:
            while look.code == 3 or any(state.at in (At.RUNNING, At.QUEUED) for state in look.states):
                time.sleep(WATCH_S)
                look = _look(arguments)
                live.update(_picture(arguments, look), refresh=True)
    else:
        Console().print(_picture(arguments, look))
    if look.note:
        print(look.note, file=sys.stderr)
    return look.code


def _look(arguments: Namespace) -> Look:
    from slurm.states import run_states

    runs = _runs(arguments)
    slurm, note = slurm_view(arguments.work_dir, runs)
    return Look(run_states(runs, arguments.work_dir, slurm), note)


def slurm_view(work_dir: Path, runs: Iterable[str]) -> tuple[Known | None, str]:
    """What Slurm says of submitted runs; None if none was submitted, or if it does not answer, which the text says."""
    from slurm import queue
    from slurm.agenda import known
    from slurm.submissions import submissions

    if not submissions(work_dir):
        return None, ""
    ended = [id_ for id_ in runs if os.path.exists(f"{work_dir}/runs/{id_}/record.json")]
    try:
        return known(work_dir, queue.cluster(), ended), ""
    except KdsegError as error:
        return None, f"without Slurm, from the runs' own files alone: {error}"


def _runs(arguments: Namespace) -> dict[str, Run]:
    """Run id -> run, of one sweep or of all that is in the work directory."""
    from benchmark.records.run_directory import RunDirectory, manifests

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


def _picture(arguments: Namespace, look: Look) -> Any:
    from benchmark.cli.overview import every_run, overview

    if arguments.all:
        return every_run(look.states)
    title = f"sweep {sweep_name(arguments.sweep)}" if arguments.sweep else str(arguments.work_dir)
    submitted = any(state.element for state in look.states)
    command = shlex.join(["kdseg", "retry", arguments.sweep or "SWEEP", "--work-dir", str(arguments.work_dir)])
    return overview(title, look.states, command if submitted else "")


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
