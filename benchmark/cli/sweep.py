"""Commands that launch sweeps: `sweep` here, `submit` and `retry` on a cluster."""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.cli.train import execution, select_on
from benchmark.core.errors import KdsegError
from benchmark.data.layouts import check_splits
from benchmark.records.run_directory import RunDirectory, write_manifest
from benchmark.spec import definitions
from benchmark.spec.tuning import trials

if TYPE_CHECKING:
    from benchmark.sweeps.plan import Plan
    from slurm.agenda import Agenda, Known
    from slurm.arrays import Array
    from slurm.queue import Limits
    from slurm.submissions import Submission
    from slurm.submit import Batch


def sweep(arguments: Namespace) -> int:
    """`kdseg sweep`: all runs of a sweep, in several processes; finished ones are left alone."""
    from benchmark.cli.progress import Progress
    from benchmark.sweeps.plan import cohorts
    from slurm.local import NO_TEACHER, log_file, run_jobs

    plan = planned(arguments)
    manifest, work_dir = plan.manifest, arguments.work_dir
    write_manifest(work_dir, manifest)
    _say_skips(plan)
    _say_trials(plan)
    jobs = cohorts(
        plan, work_dir, arguments.data_root, execution(arguments), arguments.cohort, arguments.allow_off_protocol
    )
    done = {run.id for run in manifest.runs if RunDirectory(work_dir, run.id).finished()}
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


def submit(arguments: Namespace) -> int:
    """`kdseg submit`: the jobs of a sweep to Slurm, but for runs that are done, run or wait already."""
    from benchmark.sweeps.plan import chosen

    plan = planned(arguments)
    return _launch(arguments, plan, lambda _: chosen(plan.manifest.runs, arguments.only))


def retry(arguments: Namespace) -> int:
    """`kdseg retry`: failed runs once more, and the students that were cancelled because their teacher failed."""
    from slurm.again import chosen_again, put_aside, wanted_causes

    plan, work_dir = planned(arguments), arguments.work_dir
    causes = wanted_causes(arguments.failed)

    def choose(now: Known) -> set[str]:
        again = chosen_again(plan.manifest.runs, work_dir, now, causes)
        if not again:
            raise KdsegError(f"sweep {plan.manifest.sweep}: no run failed by {arguments.failed}; see kdseg status")
        if not arguments.dry_run:
            put_aside(again, work_dir)
        return again

    return _launch(arguments, plan, choose)


def _launch(arguments: Namespace, plan: Plan, choose: Callable[[Known], set[str]]) -> int:
    """Submit those of the chosen runs that are neither done nor live, or show it (`--dry-run`)."""
    from slurm import queue, submissions
    from slurm.agenda import agenda, known, room
    from slurm.submit import Batch
    from slurm.submit import submit as submit_batch

    arguments.work_dir = work_dir = arguments.work_dir.resolve()
    limits = queue.limits()
    with submissions.lock(work_dir):
        now = known(work_dir, limits.cluster, finished(work_dir, plan))
        found = agenda(plan.manifest.runs, choose(now), work_dir, now)
        _say_skips(plan)
        _say_trials(plan)
        _say_agenda(plan, found)
        if not found.todo:
            print("nothing to submit")
            return 0
        name = arguments.profile or _last_profile(work_dir, plan.manifest.sweep)
        elements = {run: now.attempts[run].element for run in found.live if run in now.attempts}
        check_files(plan, arguments.data_root)
        made = _arrays(arguments, plan, name, limits, found)
        batch = Batch(plan.manifest.sweep, name, work_dir, limits, made, elements, now.counts)
        if arguments.dry_run:
            return _dry_run(batch)
        write_manifest(work_dir, plan.manifest)
        left = submit_batch(batch, room(limits, now), _say_submitted)
    if left:
        print(f"{left} jobs left: the queue takes {limits.jobs} of yours at a time; submit again once some are done")
    print(f"kdseg status {plan.manifest.sweep} --work-dir {shlex.quote(str(work_dir))}")
    return 0


def check_files(plan: Plan, root: Path | None) -> None:
    """Find the pictures before a job is started that would miss them."""
    for name in {run.dataset for run in plan.manifest.runs}:
        check_splits(definitions.dataset(name), root)


def _arrays(arguments: Namespace, plan: Plan, name: str, limits: Limits, found: Agenda) -> list[Array]:
    """The arrays of the runs that are to be launched, with what the profile gives them."""
    from benchmark.sweeps.plan import cohorts
    from slurm.arrays import arrays
    from slurm.profiles import allot, equipped, load_profile

    profile = load_profile(name)
    root = arguments.data_root.resolve() if arguments.data_root else None
    jobs = cohorts(
        plan.restricted(found.todo),
        arguments.work_dir,
        root,
        execution(arguments),
        arguments.cohort,
        arguments.allow_off_protocol,
    )
    changes = {key: getattr(arguments, key) for key in ("mem_gb", "timeout_min") if getattr(arguments, key, None)}
    resources = [given.model_copy(update=changes) for given in allot(profile, jobs, name)]
    jobs = [equipped(job, given, arguments.workers) for job, given in zip(jobs, resources, strict=True)]
    return arrays(
        list(zip(jobs, resources, strict=True)),
        {run.id for run in found.todo} | set(found.live),
        min(limits.array, limits.jobs or limits.array),
        arguments.max_parallel or profile.array_parallelism,
    )


def _last_profile(work_dir: Path, sweep: str) -> str:
    """The profile that a sweep was submitted with last."""
    from slurm.submissions import submissions

    used = [entry.profile for entry in submissions(work_dir) if entry.sweep == sweep]
    if not used:
        raise KdsegError(f"sweep {sweep}: was not submitted from {work_dir}; use kdseg submit")
    return used[-1]


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
    return {run.id for run in plan.manifest.runs if RunDirectory(work_dir, run.id).finished()}


def _dry_run(batch: Batch) -> int:
    """Show what sbatch would get for each array, and what Slurm thinks of it; 1 if it would refuse one."""
    from slurm.submit import script, test

    refused = 0
    for array in batch.arrays:
        name = f"{batch.sweep}.dry-run"
        waits = f", once its teacher {array.teacher} is done" if array.teacher else ""
        print(f"\n# {len(array.jobs)} jobs, {array.parallel} at a time{waits}")
        print(script(batch, array, name).strip())
        try:
            print(f"# {test(batch, array, name)}")
        except KdsegError as error:
            print(f"# refused: {error}")
            refused = 1
    return refused


def _say_skips(plan: Plan) -> None:
    for skip in plan.manifest.skips:
        print(f"skipped: {skip.variant} on {skip.teacher} → {skip.student}: {skip.reason}")


def _say_trials(plan: Plan) -> None:
    """How many settings a tuning sweep tries of each method: unequal numbers favour those with more."""
    tried = trials(plan.manifest.runs)
    if tried:
        print("settings tried: " + ", ".join(f"{name} {count}" for name, count in tried.items()))
    if len(set(tried.values())) > 1:
        print("warning: methods get unequal numbers of trials; a comparison of their best is not fair", file=sys.stderr)


def _say_agenda(plan: Plan, found: Agenda) -> None:
    counts = {
        "done": found.done,
        "running or waiting": found.live,
        "not chosen": found.left_out,
        "to launch": found.todo,
    }
    parts = [f"{len(group)} {name}" for name, group in counts.items() if group]
    print(f"sweep {plan.manifest.sweep}: {len(plan.manifest.runs)} runs: {', '.join(parts)}")
    for run, why in found.blocked.items():
        print(f"not launched: {run}: {why}")


def _say_submitted(submission: Submission, array: Array) -> None:
    waits = f", after its teacher {array.teacher}" if array.teacher else ""
    print(f"job {submission.job}: {len(array.jobs)} jobs, {array.parallel} at a time{waits}", flush=True)
