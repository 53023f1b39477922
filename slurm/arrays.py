"""From jobs to Slurm arrays: teachers first, then for each teacher an array that waits for its run alone. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmark.spec.runs import Job
from slurm.profiles import Resources


@dataclass(frozen=True)
class Array:
    """Jobs that are submitted at once, with the same resources.

    Attributes:
        parallel: how many of them may run at the same time.
        teacher: the run that must be done before any of them starts; None: there is none, or it is done.
        after: place (in the list of arrays) of one that must have ended before, so that no more run than allowed.
    """

    jobs: tuple[Job, ...]
    resources: Resources
    parallel: int
    teacher: str | None = None
    after: int | None = None


def arrays(
    jobs: Sequence[tuple[Job, Resources]], unfinished: Iterable[str], largest: int, parallel: int
) -> list[Array]:
    """The arrays of a plan, in the order in which they are to be submitted.

    Args:
        jobs: with their resources; a teacher's job before those of its students.
        unfinished: ids of runs that are not done yet; a job whose teacher is one of them waits for it.
        largest: most elements that an array may have here (Slurm's MaxArraySize and MaxSubmitJobs).
        parallel: most jobs at the same time, of teachers and then of students. Where there are more arrays than that,
            some wait for the end of another.
    """
    missing = set(unfinished)
    result: list[Array] = []
    for waits in (False, True):
        groups: dict[str, list[tuple[Job, Resources]]] = {}
        for job, resources in jobs:
            teacher = job.teacher.id if job.teacher and job.teacher.id in missing else ""
            if bool(teacher) is waits:
                groups.setdefault(teacher + resources.model_dump_json(), []).append((job, resources))
        parts = [group[i : i + largest] for group in groups.values() for i in range(0, len(group), largest)]
        lanes = min(parallel, len(parts))
        shares = divided(parallel, [len(part) for part in parts]) if lanes == len(parts) else [1] * len(parts)
        start = len(result)
        for index, (part, share) in enumerate(zip(parts, shares, strict=True)):
            job, resources = part[0]
            result.append(
                Array(
                    jobs=tuple(job for job, _ in part),
                    resources=resources,
                    parallel=share,
                    teacher=job.teacher.id if waits and job.teacher else None,
                    after=start + index - lanes if index >= lanes else None,
                )
            )
    return result


def divided(total: int, sizes: Sequence[int]) -> list[int]:
    """`total` divided over parts of these sizes: at least 1 each, none more than its size, the rest evenly.

    `total` must be at least the number of parts; their sum is `total`, or all that they can use.
    """
    shares = [1] * len(sizes)
    left = min(total, sum(sizes)) - len(sizes)
    while left > 0:
        for index in sorted(range(len(sizes)), key=lambda index: shares[index]):
            if left and shares[index] < sizes[index]:
                shares[index] += 1
                left -= 1
    return shares
