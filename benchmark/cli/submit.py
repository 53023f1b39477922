"""`kdseg submit` and `kdseg retry`: a sweep's jobs to Slurm."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.cli.options import Commands, add_command, add_sweep, execution, positive
from benchmark.cli.sweep import check_files, finished, planned, say_skips, say_trials
from benchmark.core.errors import KdsegError

if TYPE_CHECKING:
    from benchmark.sweeps.plan import Plan
    from slurm.agenda import Agenda, Known
    from slurm.arrays import Array
    from slurm.queue import Limits
    from slurm.submissions import Submission
    from slurm.submit import SubmitRequest


def add_commands(commands: Commands) -> None:
    """Declare `kdseg submit` and `kdseg retry`."""
    sub = add_command(
        commands,
        submit,
        "submit",
        "submit a sweep to Slurm and return at once",
        "kdseg submit slurm/sweeps/tiny.yaml --profile local",
    )
    _launching(sub, profile_required=True)
    sub.add_argument(
        "--only",
        default="",
        metavar="KEY=VALUE,...",
        help="some of the runs, and their teachers: method, student, "
        "teacher, seed, dataset or protocol; a key given twice means either",
    )

    sub = add_command(
        commands,
        retry,
        "retry",
        "submit failed runs again, and students that were cancelled with their teacher",
        "kdseg retry slurm/sweeps/tiny.yaml --failed oom,node --mem-gb 64",
    )
    _launching(sub, profile_required=False)
    sub.add_argument(
        "--failed",
        required=True,
        metavar="CAUSE,...",
        help="of oom, timeout, node, error, cancelled, and diverged: whose record is then moved aside",
    )
    sub.add_argument("--mem-gb", type=float, help="memory of a job, instead of the profile's")
    sub.add_argument("--timeout-min", type=positive, help="time limit of a job, instead of the profile's")


def _launching(sub: ArgumentParser, profile_required: bool) -> None:
    add_sweep(sub)
    sub.add_argument(
        "--profile",
        required=profile_required,
        help="a cluster's, of slurm/profiles/ or a file of yours"
        + ("" if profile_required else " (default: the one that the sweep was last submitted with)"),
    )
    sub.add_argument("--dry-run", action="store_true", help="show what would be submitted, and ask Slurm about it")
    sub.add_argument("--max-parallel", type=positive, help="most jobs at the same time (default: the profile's)")


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
    from benchmark.records.run_directory import write_manifest
    from slurm import queue, submissions
    from slurm.agenda import agenda, known, room
    from slurm.submit import SubmitRequest
    from slurm.submit import submit as submit_batch

    arguments.work_dir = work_dir = arguments.work_dir.resolve()
    limits = queue.limits()
    with submissions.lock(work_dir):
        now = known(work_dir, limits.cluster, finished(work_dir, plan))
        work = agenda(plan.manifest.runs, choose(now), work_dir, now)
        say_skips(plan)
        say_trials(plan)
        _say_agenda(plan, work)
        if not work.todo:
            print("nothing to submit")
            return 0
        name = arguments.profile or _last_profile(work_dir, plan.manifest.sweep)
        elements = {run: now.attempts[run].element for run in work.live if run in now.attempts}
        check_files(plan, arguments.data_root)
        arrays = _arrays(arguments, plan, name, limits, work)
        batch = SubmitRequest(plan.manifest.sweep, name, work_dir, limits, arrays, elements, now.counts)
        if arguments.dry_run:
            return _dry_run(batch)
        write_manifest(work_dir, plan.manifest)
        left = submit_batch(batch, room(limits, now), _say_submitted)
    if left:
        print(f"{left} jobs left: the queue takes {limits.jobs} of yours at a time; submit again once some are done")
    print(f"kdseg status {plan.manifest.sweep} --work-dir {shlex.quote(str(work_dir))}")
    return 0


def _arrays(arguments: Namespace, plan: Plan, name: str, limits: Limits, work: Agenda) -> list[Array]:
    """The arrays of the runs that are to be launched, with what the profile gives them."""
    from benchmark.sweeps.plan import cohorts
    from slurm.arrays import arrays
    from slurm.profiles import allot, equipped, load_profile

    profile = load_profile(name)
    root = arguments.data_root.resolve() if arguments.data_root else None
    jobs = cohorts(
        plan.restricted(work.todo),
        arguments.work_dir,
        root,
        execution(arguments),
        arguments.cohort,
        arguments.allow_off_protocol,
    )
    changes = {key: getattr(arguments, key) for key in ("mem_gb", "timeout_min") if getattr(arguments, key, None)}
    resources = [allotted.model_copy(update=changes) for allotted in allot(profile, jobs, name)]
    jobs = [equipped(job, allotted, arguments.workers) for job, allotted in zip(jobs, resources, strict=True)]
    return arrays(
        list(zip(jobs, resources, strict=True)),
        {run.id for run in work.todo} | set(work.live),
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


def _dry_run(batch: SubmitRequest) -> int:
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


def _say_agenda(plan: Plan, work: Agenda) -> None:
    counts = {
        "done": work.done,
        "running or waiting": work.live,
        "not chosen": work.left_out,
        "to launch": work.todo,
    }
    parts = [f"{len(group)} {name}" for name, group in counts.items() if group]
    print(f"sweep {plan.manifest.sweep}: {len(plan.manifest.runs)} runs: {', '.join(parts)}")
    for run, why in work.blocked.items():
        print(f"not launched: {run}: {why}")


def _say_submitted(submission: Submission, array: Array) -> None:
    waits = f", after its teacher {array.teacher}" if array.teacher else ""
    print(f"job {submission.job}: {len(array.jobs)} jobs, {array.parallel} at a time{waits}", flush=True)
