"""Which failed runs are to be launched again, and what has to give way before."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmark.core.errors import unknown
from benchmark.records.record import State
from benchmark.records.run_directory import RunDirectory
from benchmark.spec.runs import Run
from slurm.agenda import Known
from slurm.states import At, Cause, run_states

CAUSES = (*Cause, At.DIVERGED)


def wanted_causes(text: str) -> set[str]:
    """`oom,node` as a set.

    Raises:
        KdsegError: there is no such cause (with near matches).
    """
    causes = {part.strip() for part in text.split(",")}
    for name in causes - {str(cause) for cause in CAUSES}:
        raise unknown("cause", name, map(str, CAUSES), "--failed")
    return causes


def chosen_again(runs: Iterable[Run], work_dir: Path, now: Known, causes: set[str]) -> set[str]:
    """The ids of runs that failed by one of `causes`, of students that wait for them in vain, and what shares a job."""
    by_id = {run.id: run for run in runs}
    states = {state.id: state for state in run_states(by_id, work_dir, now)}
    failed = {
        id_
        for id_, state in states.items()
        if (state.at is At.FAILED and state.cause in causes) or (state.at is At.DIVERGED and "diverged" in causes)
    }
    idle = {id_ for id_, state in states.items() if state.at in (At.FAILED, At.WAITING, At.STOPPED)}
    again = failed | {id_ for id_ in idle if (teacher := by_id[id_].teacher) and teacher.id in failed}
    jobs = {states[id_].element for id_ in again} - {""}
    return again | {id_ for id_ in idle if states[id_].element in jobs}


def put_aside(ids: Iterable[str], work_dir: Path) -> None:
    """Rename the records of diverged runs, so that they are made again; nothing is lost."""
    for id_ in ids:
        directory = RunDirectory(work_dir, id_)
        brief = directory.brief()
        if brief and brief.outcome is State.DIVERGED:
            file = directory.path / "record.json"
            number = len(list(directory.path.glob("record.json.diverged*")))
            file.replace(file.with_name(f"record.json.diverged{number or ''}"))
