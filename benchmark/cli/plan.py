"""`kdseg plan`: what a sweep is made of, what of it is there already, and what the rest will cost."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import Counter
from typing import TYPE_CHECKING, Any

from benchmark.cli.options import Commands, add_command, add_sweep, execution
from benchmark.cli.status import slurm_view
from benchmark.cli.sweep import check_files, planned

if TYPE_CHECKING:
    from rich.table import Table

    from benchmark.spec.runs import Job
    from benchmark.sweeps.estimate import Estimate
    from benchmark.sweeps.plan import Plan
    from slurm.states import RunState


def add_commands(commands: Commands) -> None:
    """Declare `kdseg plan`."""
    sub = add_command(
        commands, plan, "plan", "what a sweep is made of, and what it costs", "kdseg plan slurm/sweeps/cityscapes.yaml"
    )
    sub.add_argument("--format", choices=("table", "json"), default="table")
    add_sweep(sub)


def plan(arguments: Namespace) -> int:
    """`kdseg plan`: runs, jobs, skips, states, hours and disk of a sweep; nothing is launched or written."""
    from rich.console import Console
    from rich.text import Text

    from benchmark.records.record import records
    from benchmark.sweeps.estimate import estimate, measured
    from benchmark.sweeps.plan import cohorts
    from slurm.states import run_states

    missing: list[str] = []
    sweep_plan = planned(arguments, missing)
    work_dir = arguments.work_dir
    runs = {run.id: run for run in sweep_plan.manifest.runs}
    slurm, note = slurm_view(work_dir, runs)
    states = run_states(runs, work_dir, slurm)
    todo = [state.run for state in states if not (_ended(state) or _under_way(state))]
    if arguments.data_root:
        check_files(sweep_plan, arguments.data_root)
    options = (work_dir, arguments.data_root, execution(arguments), arguments.cohort, arguments.allow_off_protocol)
    jobs = cohorts(sweep_plan.restricted(todo), *options)
    known = measured(records(work_dir)) if work_dir.is_dir() else {}
    cost, everything = estimate(jobs, known), cohorts(sweep_plan, *options)
    if arguments.format == "json":
        print(json.dumps(_data(sweep_plan, states, jobs, cost, everything, missing)))
        return 0
    console = Console()
    count = f"{len(runs)} runs in {len(everything)} jobs"
    console.print(Text(f"sweep {sweep_plan.manifest.sweep}: {count} of at most {arguments.cohort} runs", "bold"))
    console.print(_table(states))
    for line in _facts(states, jobs, cost, missing, note):
        console.print(Text(line), soft_wrap=True)
    for reason, cells in _skips(sweep_plan).items():
        console.print(Text(f"skipped: {', '.join(cells)}: {reason}"), soft_wrap=True)
    return 0


def _facts(states: list[RunState], jobs: list[Job], cost: Estimate, missing: list[str], note: str) -> list[str]:
    from slurm.states import At

    counts = Counter(state.at for state in states)
    ended = ", ".join(f"{counts[at]} {at}" for at in At if counts[at] and at is not At.WAITING)
    lines = [f"now        {ended}"] if ended else []
    lines.append(f"to launch  {cost.runs} runs in {len(jobs)} jobs")
    if cost.runs:
        lines.append(f"GPU-hours  {hours(cost.hours)}, {cost.basis}")
        lines.append(f"disk       {size(cost.disk_gb)}, and up to {size(cost.peak_gb)} while all train")
    if missing:
        lines.append(
            f"weights    not found: {', '.join(dict.fromkeys(missing))}; submitting needs them (--weights-dir)"
        )
    return [*lines, *([note] if note else [])]


def _table(states: list[RunState]) -> Table:
    """A line per pair: how many runs, and how many of them are done or under way."""
    from rich.table import Table

    from benchmark.spec.networks import network

    groups: dict[str, list[RunState]] = {}
    for state in states:
        teacher = state.run.teacher
        pair = f"{network(teacher.model).title} → {network(state.run.model).title}" if teacher else "no teacher"
        groups.setdefault(pair, []).append(state)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("pair", overflow="fold")
    for name in ("seeds", "runs", "done", "live"):
        table.add_column(name, justify="right")
    for pair, group in groups.items():
        counts = (
            len({state.run.seed for state in group}),
            len(group),
            sum(map(_ended, group)),
            sum(map(_under_way, group)),
        )
        table.add_row(pair, *map(str, counts))
    return table


def _ended(state: RunState) -> bool:
    from slurm.states import At

    return state.at in (At.DONE, At.DIVERGED)


def _under_way(state: RunState) -> bool:
    from slurm.states import At

    return state.at in (At.RUNNING, At.QUEUED)


def _skips(sweep_plan: Plan) -> dict[str, list[str]]:
    """Reason -> the cells that are skipped for it."""
    reasons: dict[str, list[str]] = {}
    for skip in sweep_plan.manifest.skips:
        reasons.setdefault(skip.reason, []).append(f"{skip.variant} on {skip.teacher} → {skip.student}")
    return reasons


def _data(
    sweep_plan: Plan, states: list[RunState], jobs: list[Job], cost: Estimate, everything: list[Job], missing: list[str]
) -> dict[str, Any]:
    from dataclasses import asdict

    job_numbers = {run.id: number for number, job in enumerate(jobs) for run in job.runs}
    return {
        "sweep": sweep_plan.manifest.sweep,
        "runs": [
            {
                "run": state.id,
                "model": state.run.model,
                "method": state.run.method.variant,
                "seed": state.run.seed,
                "teacher": state.run.teacher.model if state.run.teacher else None,
                "state": str(state.at),
                "job": job_numbers.get(state.id),
            }
            for state in states
        ],
        "jobs": len(everything),
        "jobs_to_launch": len(jobs),
        "missing_weights": list(dict.fromkeys(missing)),
        "cost": asdict(cost) | {"basis": cost.basis},
        "skips": [skip.model_dump() for skip in sweep_plan.manifest.skips],
    }


def hours(value: float) -> str:
    """Hours as whole numbers, small ones with two digits."""
    if value < 0.01:
        return "< 0.01"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def size(gigabytes: float) -> str:
    """Gigabytes as MB, GB or TB."""
    for unit, factor in (("TB", 1000.0), ("GB", 1.0)):
        if gigabytes >= factor:
            return f"{gigabytes / factor:.3g} {unit}"
    return f"{gigabytes * 1000:.0f} MB"
