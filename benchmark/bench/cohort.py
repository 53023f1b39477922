"""What a cohort costs beside its runs one by one, in time and in memory: `cohort.json`.

`python -m benchmark.bench.cohort`, part of `make bench`.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import resource
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmark.bench.base import OUT, build_cohort, print_table, seconds, write_report
from benchmark.core.environment import processor
from benchmark.runtime.clocks import Timing
from benchmark.training.cohort import Cohort
from benchmark.training.member import Member

TEACHER, STUDENT = "segformer_mit_b4", "deeplabv3_mbv2"
NINE = ("student", "kd", "fitnet", "at", "cwd", "dist", "ifvd", "skd", "heteroakd")
SIZES = {3: ("student", "kd", "heteroakd"), 9: NINE}
MEMORY_STEPS = 2


def main(argv: list[str]) -> int:
    """Measure, print, and write `cohort.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.bench.cohort", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=128, help="of the crops that time is measured at")
    parser.add_argument("--memory-size", type=int, default=256, help="of the crops that memory is measured at")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args(argv)
    memory = measure_memory(arguments.memory_size, arguments.batch)  # first: a child's peak includes what we hold
    with tempfile.TemporaryDirectory() as folder:
        times = measure_time(Path(folder), arguments.rounds, arguments.size, arguments.batch)
    rows = [
        [
            f"cohort of {size}",
            f"{each['iteration_s']:.3f}",
            f"{each['singles_s']:.3f}",
            f"{each['ratio']:.3f}",
            f"{each['floor']:.3f}",
            f"{each['over_floor']:.3f}",
        ]
        for size, each in times["cohorts"].items()
    ]
    title = f"{TEACHER} → {STUDENT}, {arguments.batch} × {arguments.size}², {processor()}, 1 thread"
    columns = ("seconds per iteration", "together", "one by one", "ratio", "its floor", "ratio / floor")
    print_table(title, columns, rows)
    single = [[name, f"{each['step_s']:.3f}", f"{each['over_parts']:.3f}"] for name, each in times["singles"].items()]
    print_table(
        f"alone: teacher {times['teacher_s']:.3f} s, data {times['data_s']:.3f} s", ("run", "step s", "/ parts"), single
    )
    print_table(
        f"peak memory, {arguments.batch} × {arguments.memory_size}²",
        ("MB", ""),
        [
            [name.replace("_", " "), f"{value:,.2f}" if value < 10 else f"{value:,.0f}"]
            for name, value in memory.items()
            if not isinstance(value, dict)
        ],
    )
    setting = {
        "teacher": TEACHER,
        "student": STUDENT,
        "size": arguments.size,
        "memory_size": arguments.memory_size,
        "batch": arguments.batch,
        "rounds": arguments.rounds,
    }
    write_report(arguments.out, "cohort", setting, {**times, "memory": memory})
    return 0


def measure_time(folder: Path, rounds: int, size: int, batch: int) -> dict[str, Any]:
    """Iterations of the nine runs alone and in cohorts, in alternation; a round's parts are its single runs'.

    A cohort's floor is (T + D + ΣSᵢ) / Σ(Tᵢ + D + Sᵢ): one teacher pass T and one batch D for all, and every student's
    step Sᵢ, over what the single runs take; Tᵢ = 0 for the student alone.

    Returns:
        `cohorts` by size, `singles` by method, `teacher_s` and `data_s`: medians over rounds.
    """
    whole = build_cohort(folder, NINE, TEACHER, STUDENT, (size, size), batch)
    singles = {member.run.method.name: _View(whole, [member]) for member in whole.members}
    together = {
        size: _View(whole, [singles[name].cohort.members[0] for name in names]) for size, names in SIZES.items()
    }
    views = [*together.values(), *singles.values()]
    for position in range(rounds + 1):  # the first warms up
        for view in views if position % 2 else views[::-1]:
            view.iterate()
    over = range(1, rounds + 1)
    teacher = [statistics.median(view.teacher()[i] for view in singles.values() if view.teacher()) for i in (0, *over)]
    data = [statistics.median(view.data()[i] for view in singles.values()) for i in (0, *over)]

    def parts(name: str, i: int) -> float:
        return (teacher[i] if singles[name].teacher() else 0.0) + data[i] + singles[name].step(i)

    cohorts = {}
    for count, view in together.items():
        names = SIZES[count]
        alone = [sum(singles[name].wall[i] for name in names) for i in over]
        floors = [
            (teacher[i] + data[i] + sum(singles[n].step(i) for n in names)) / sum(parts(n, i) for n in names)
            for i in over
        ]
        ratios = [view.wall[i] / one_by_one for i, one_by_one in zip(over, alone, strict=True)]
        cohorts[str(count)] = {
            "iteration_s": statistics.median(view.wall[1:]),
            "singles_s": statistics.median(alone),
            "ratio": statistics.median(ratios),
            "floor": statistics.median(floors),
            "over_floor": statistics.median(a / b for a, b in zip(ratios, floors, strict=True)),
        }
    return {
        "cohorts": cohorts,
        "singles": {
            name: {
                "iteration_s": statistics.median(view.wall[1:]),
                "step_s": statistics.median(view.step(i) for i in over),
                "over_parts": statistics.median(view.wall[i] / view.parts(i) for i in over),
            }
            for name, view in singles.items()
        },
        "teacher_s": statistics.median(teacher[1:]),
        "data_s": statistics.median(data[1:]),
    }


class _View:
    """Some members of a cohort, as a cohort of their own that is timed."""

    def __init__(self, whole: Cohort, members: Sequence[Member]) -> None:
        self.cohort = copy.copy(whole)
        self.cohort.members, self.cohort.timing = list(members), Timing(whole.device)
        self.batches: Iterator[Any] = self.cohort.batches()
        self.wall: list[float] = []
        self.steps: list[float] = []

    def iterate(self) -> None:
        """One iteration."""
        before = [len(member.steps.seconds()) for member in self.cohort.members]
        self.wall.append(seconds(lambda: self.cohort.advance(next(self.batches))))
        taken = [m.steps.seconds()[first:] for m, first in zip(self.cohort.members, before, strict=True)]
        self.steps.append(sum(sum(each) for each in taken))

    def step(self, i: int) -> float:
        """Seconds of the members' own steps in iteration `i`."""
        return self.steps[i]

    def teacher(self) -> list[float]:
        """The teacher's seconds in each iteration; empty without one."""
        return self.cohort.timing.teacher.seconds()

    def data(self) -> list[float]:
        """Seconds of data in each iteration."""
        return self.cohort.timing.data.seconds()

    def parts(self, i: int) -> float:
        """Seconds of iteration `i` in teacher, data and steps."""
        return self.step(i) + self.data()[i] + (self.teacher()[i] if self.teacher() else 0.0)


def measure_memory(size: int, batch: int) -> dict[str, Any]:
    """Peak resident memory in MB of each run alone and of all nine together, each in a process of its own.

    Returns:
        `singles` by method, `cohort`, `states` (parameters, buffers and optimiser states of all but the run with the
        largest peak), and `over_largest`: (`cohort` - `states`) / the largest single peak.
    """
    peaks: dict[str, tuple[float, dict[str, float]]] = {}
    for methods in (*((name,) for name in NINE), NINE):
        with multiprocessing.get_context("fork").Pool(1) as pool:
            peaks["+".join(methods)] = pool.apply(_peak, (methods, size, batch))
    singles = {name: peaks[name][0] for name in NINE}
    largest = max(singles, key=singles.__getitem__)
    cohort, states = peaks["+".join(NINE)]
    others = sum(megabytes for name, megabytes in states.items() if name != largest)
    return {
        "singles": singles,
        "largest_single": singles[largest],
        "cohort": cohort,
        "states": others,
        "over_largest": (cohort - others) / singles[largest],
    }


def _peak(methods: Sequence[str], size: int, batch: int) -> tuple[float, dict[str, float]]:
    """This process' peak after some iterations, and what each run keeps between two."""
    with tempfile.TemporaryDirectory() as folder:
        cohort = build_cohort(Path(folder), methods, TEACHER, STUDENT, (size, size), batch)
        batches = cohort.batches()
        for _ in range(MEMORY_STEPS):
            cohort.advance(next(batches))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return peak, {member.run.method.name: _state(member) for member in cohort.members}


def _state(member: Member) -> float:
    """MB of a run's parameters, buffers and optimiser states."""
    tensors = [*member.distiller.parameters(), *member.distiller.buffers()]
    for wrapper in (member.optimizer, *member.own.values()):
        tensors += [x for state in wrapper.optimizer.state.values() for x in state.values() if hasattr(x, "numel")]
    return sum(x.numel() * x.element_size() for x in tensors) / 2**20


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
