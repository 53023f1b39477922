"""Which runs of a plan are to be launched, and why the others are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.records.record import State
from benchmark.records.run_directory import RunDirectory
from benchmark.spec.runs import Run
from slurm import queue
from slurm.queue import Limits, Seen
from slurm.submissions import Attempt, Submission, attempts, note, submissions


@dataclass(frozen=True)
class Known:
    """What the submissions of a work directory and Slurm say together.

    Attributes:
        attempts: run id -> its latest submission.
        seen: element id -> Slurm's view, of elements on this cluster that it still knows.
        counts: run id -> how often it was submitted.
    """

    attempts: Mapping[str, Attempt]
    seen: Mapping[str, Seen]
    counts: Mapping[str, int]
    cluster: str

    def look(self, run: str) -> Seen | None:
        """Slurm's view of a run's latest element; None if it was never submitted here, or is forgotten."""
        attempt = self.attempts.get(run)
        if attempt is None or attempt.submission.cluster != self.cluster:
            return None
        seen = self.seen.get(attempt.element)
        # The name tells, because Slurm begins its ids anew after the largest.
        return seen if seen and seen.name == attempt.submission.name else None


@dataclass
class Agenda:
    """The runs of a plan, each in one place.

    Attributes:
        todo: to be launched; a teacher before its students.
        done: with a record, `diverged` or not.
        live: run id -> where it runs or waits.
        blocked: run id -> why it cannot be launched.
        left_out: what `--only` does not name.
    """

    todo: list[Run] = field(default_factory=list)
    done: list[Run] = field(default_factory=list)
    live: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    left_out: list[Run] = field(default_factory=list)


def known(work_dir: Path, cluster: str, finished: Iterable[str]) -> Known:
    """Ask Slurm about all submissions that hold a run which is not finished.

    A submission that was interrupted before Slurm's answer was noted is looked for by its name, and noted.

    Raises:
        KdsegError: Slurm does not answer.
    """
    ended, entries = set(finished), submissions(work_dir)
    unfinished = [
        entry
        for entry in entries
        if entry.cluster == cluster and not all(run in ended for runs in entry.runs for run in runs)
    ]
    seen = queue.poll(unfinished)
    ids = {job.name: key.partition("_")[0] for key, job in seen.items()}
    settled: list[Submission] = []
    for entry in entries:
        if not entry.job and entry.name in ids:
            entry = entry.model_copy(update={"job": ids[entry.name]})
            note(work_dir, entry)
        settled.append(entry)
    counts: dict[str, int] = {}
    for entry in settled:
        for runs, attempt in zip(entry.runs, entry.attempts, strict=True):
            counts |= {run: max(attempt, counts.get(run, 0)) for run in runs if entry.job}
    return Known(attempts(settled), seen, counts, cluster)


def agenda(runs: Iterable[Run], chosen: set[str], work_dir: Path, now: Known) -> Agenda:
    """Sort runs into what is to be launched and what is not. `chosen` holds the ids that are wanted, with teachers."""
    result = Agenda()
    diverged: set[str] = set()
    for run in runs:
        directory = RunDirectory(work_dir, run.id)
        if run.id not in chosen:
            result.left_out.append(run)
        elif directory.finished():
            result.done.append(run)
            record = directory.record()
            if record and record.outcome is State.DIVERGED:
                diverged.add(run.id)
        elif where := _live(run, directory, now):
            result.live[run.id] = where
        elif run.teacher and run.teacher.id in diverged:
            result.blocked[run.id] = (
                f"its teacher {run.teacher.id} diverged; `kdseg retry --failed diverged` runs it again"
            )
        else:
            result.todo.append(run)
    return result


def room(limits: Limits, now: Known) -> int | None:
    """How many more jobs the queue takes of this user; None: any number."""
    return None if limits.jobs is None else max(0, limits.jobs - sum(seen.live for seen in now.seen.values()))


def _live(run: Run, directory: RunDirectory, now: Known) -> str:
    """Where a run runs or waits; empty if it does not. Slurm's word goes before a heartbeat."""
    attempt, seen = now.attempts.get(run.id), now.look(run.id)
    if attempt and seen:
        return f"job {attempt.element}, {seen.state.lower()}" if seen.live else ""
    if attempt and attempt.submission.cluster == now.cluster:
        return ""
    status = directory.status()
    return f"pid {status.pid} on {status.host}" if status and status.state is State.RUNNING else ""
