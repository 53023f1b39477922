"""Trains a cohort: the same batches and one teacher pass for all its runs, one student's activations at a time.

Nothing a run computes depends on its company: on CPU, at one thread count, result and weights are bit-equal alone, in
any cohort, in any order, and after a kill and resume.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmark.core.errors import one_line
from benchmark.records.record import State
from benchmark.records.run_directory import RunDirectory, set_aside
from benchmark.runtime import distributed
from benchmark.runtime.device import prepare_process
from benchmark.spec.runs import Job, Run
from benchmark.training.cohort import Cohort
from benchmark.training.member import DamagedResume


def train_job(job: Job, stop: Callable[[], bool] = lambda: False, resume: bool = True) -> list[str]:
    """Train all runs of a job that are not finished yet, resuming where they were.

    Args:
        job: its runs must agree on their cohort key.
        stop: asked after each iteration; if true, resume files are written and `Interrupted` is raised.
        resume: go on from the newest resume files; else they are removed.

    Returns:
        One line for each run that failed (raised); diverged runs are results, not failures.

    Raises:
        KdsegError: unusable input, or a directory that another process trains in.
        Interrupted: `stop` said so.
    """
    place = distributed.find_place(os.environ)
    device = prepare_process(job, place.local if place else None)
    with distributed.joined(place, device), ExitStack() as locks:
        writes = distributed.rank() == 0
        directories = {run.id: RunDirectory(Path(job.work_dir), run.id, writes) for run in job.runs}
        if writes:
            for run in job.runs:
                directories[run.id].create(run)
                locks.enter_context(directories[run.id].lock())
                directories[run.id].set_aside_damage()
                if not resume:
                    for file in directories[run.id].resume_files().values():
                        file.unlink()
        unfinished = distributed.first([run for run in job.runs if not directories[run.id].finished()])
        failures = []
        while unfinished:
            iteration, runs = distributed.first(_next_group(unfinished, directories))
            cohort, damage = None, None
            try:
                cohort = Cohort(job, runs, iteration, device, stop, directories)
            except DamagedResume as error:
                damage = error.file, str(error)
            except Exception as error:
                for run in runs:
                    directories[run.id].write_status(State.FAILED, iteration, 0, message=one_line(error))
                raise
            damage = distributed.agree(damage)
            if damage and writes:
                set_aside(*damage)
            if cohort and not damage:
                failures += cohort.train()
                unfinished = [run for run in unfinished if run not in runs]
    return failures


def _next_group(runs: Sequence[Run], directories: dict[str, RunDirectory]) -> tuple[int, list[Run]]:
    """The runs that go on together, and from where: all where they share an iteration, else those furthest behind."""
    saved = {run.id: set(directories[run.id].resume_files()) for run in runs}
    common = set.intersection(*saved.values())
    if common:
        return max(common), list(runs)
    newest = {run.id: max(saved[run.id], default=0) for run in runs}
    iteration = min(newest.values())
    return iteration, [run for run in runs if newest[run.id] == iteration]
