"""`kdseg sweep`: a sweep run here; and what `submit`, `retry` and `plan` share with it."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.cli.options import Commands, add_command, add_sweep, execution, positive, select_on

if TYPE_CHECKING:
    from benchmark.sweeps.plan import Plan


def add_commands(commands: Commands) -> None:
    """Declare `kdseg sweep`."""
    sub = add_command(
        commands,
        sweep,
        "sweep",
        "run a sweep here, in several processes",
        "kdseg sweep slurm/sweeps/tiny.yaml --jobs 2",
    )
    sub.add_argument("--jobs", type=positive, default=1, help="jobs at the same time (default 1)")
    add_sweep(sub)


def sweep(arguments: Namespace) -> int:
    """`kdseg sweep`: all runs of a sweep, in several processes; finished ones are left alone."""
    from benchmark.cli.progress import Progress
    from benchmark.records.run_directory import write_manifest
    from benchmark.sweeps.plan import cohorts
    from slurm.local import NO_TEACHER, log_file, run_jobs

    plan = planned(arguments)
    manifest, work_dir = plan.manifest, arguments.work_dir
    write_manifest(work_dir, manifest)
    say_skips(plan)
    say_trials(plan)
    jobs = cohorts(
        plan, work_dir, arguments.data_root, execution(arguments), arguments.cohort, arguments.allow_off_protocol
    )
    done = finished(work_dir, plan)
    todo = [job for job in jobs if not all(run.id in done for run in job.runs)]
    if not todo:
        print(f"sweep {manifest.sweep}: all {len(manifest.runs)} runs are done, nothing to train ({work_dir})")
        return 0
    check_files(plan, arguments.data_root)
    print(f"sweep {manifest.sweep}: {len(manifest.runs)} runs, {len(done)} done, {len(todo)} jobs to run ({work_dir})")
    with Progress(manifest, work_dir) as progress:
        outcomes = run_jobs(todo, arguments.jobs, progress.update)
    failed = [outcome for outcome in outcomes if outcome.message]
    unstarted = [outcome for outcome in failed if outcome.message == NO_TEACHER]
    for outcome in failed:
        if outcome not in unstarted:
            print(f"failed: {outcome.message} (log: {log_file(outcome.job)})", file=sys.stderr)
    if unstarted:
        print(f"{len(unstarted)} jobs {NO_TEACHER}", file=sys.stderr)
    return 1 if failed else 0


def planned(arguments: Namespace, missing: list[str] | None = None) -> Plan:
    """The plan of the sweep that is named, checked against its protocol; for `missing` see `plan_sweep`."""
    from benchmark.sweeps.plan import check_on_protocol, load_sweep, plan_sweep, sweep_file

    wanted = load_sweep(sweep_file(arguments.sweep))
    if changes := select_on(arguments):
        wanted = wanted.model_copy(
            update={"name": f"{wanted.name}-{arguments.select_on}", "overrides": wanted.overrides | changes}
        )
    plan = plan_sweep(wanted, arguments.weights_dir, missing)
    for run in {run.model: run for run in plan.manifest.runs}.values():
        check_on_protocol(run, arguments.allow_off_protocol)
    return plan


def finished(work_dir: Path, plan: Plan) -> set[str]:
    """The ids of a plan's runs that have a whole record."""
    from benchmark.records.run_directory import RunDirectory

    return {run.id for run in plan.manifest.runs if RunDirectory(work_dir, run.id).finished()}


def check_files(plan: Plan, root: Path | None) -> None:
    """Find the pictures before a job is started that would miss them."""
    from benchmark.data.layouts import check_splits
    from benchmark.spec import definitions

    for name in {run.dataset for run in plan.manifest.runs}:
        check_splits(definitions.dataset(name), root)


def say_skips(plan: Plan) -> None:
    """Which cells a sweep leaves out, and why."""
    for skip in plan.manifest.skips:
        print(f"skipped: {skip.variant} on {skip.teacher} → {skip.student}: {skip.reason}")


def say_trials(plan: Plan) -> None:
    """How many settings a tuning sweep tries of each method: unequal numbers favour those with more."""
    from benchmark.spec.tuning import trials

    tried = trials(plan.manifest.runs)
    if tried:
        print("settings tried: " + ", ".join(f"{name} {count}" for name, count in tried.items()))
    if len(set(tried.values())) > 1:
        print("warning: methods get unequal numbers of trials; a comparison of their best is not fair", file=sys.stderr)
