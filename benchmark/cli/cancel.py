"""`kdseg cancel`: take a sweep's jobs out of the queue."""

from __future__ import annotations

from argparse import Namespace

from benchmark.cli.options import Commands, add_command, add_work_dir, sweep_name
from benchmark.core.errors import unknown


def add_commands(commands: Commands) -> None:
    """Declare `kdseg cancel`."""
    sub = add_command(
        commands,
        cancel,
        "cancel",
        "take a sweep's jobs out of the queue",
        "kdseg cancel demo --work-dir work_dirs/demo",
    )
    sub.add_argument("sweep", help="name of a submitted sweep")
    add_work_dir(sub)


def cancel(arguments: Namespace) -> int:
    """`kdseg cancel`: take a sweep's jobs out of the queue; runs keep their resume files."""
    from slurm import queue
    from slurm.submissions import submissions

    name = sweep_name(arguments.sweep)
    mine = [entry for entry in submissions(arguments.work_dir) if entry.sweep == name and entry.job]
    if not mine:
        raise unknown("submitted sweep", name, {entry.sweep for entry in submissions(arguments.work_dir)})
    seen = queue.poll([])
    live = {job.name: key.partition("_")[0] for key, job in seen.items() if job.live}
    jobs = [entry.job for entry in mine if live.get(entry.name) == entry.job]
    queue.cancel(jobs)
    print(f"cancelled: {', '.join(jobs)}" if jobs else f"sweep {name}: no job of it runs or waits")
    return 0
