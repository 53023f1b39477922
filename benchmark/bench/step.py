"""What a distillation step is made of, and what it costs over its floor: `step.json`.

`python -m benchmark.bench.step`, part of `make bench`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from mmengine.optim import OptimWrapper

from benchmark.bench.base import OUT, build_cohort, print_table, seconds, write_report
from benchmark.core.environment import processor
from benchmark.method import Method
from benchmark.method.blocks import added
from benchmark.models.build import forward_taps
from benchmark.models.segmentation import Batch, task_losses
from benchmark.training import distiller
from benchmark.training.member import Member
from benchmark.training.teacher import Teacher

TEACHER, STUDENT = "segformer_mit_b0", "deeplabv3_mbv2"
PHASES = {
    "teacher": (Teacher, "taps"),
    "student forward": (distiller, "forward_taps"),
    "task loss": (distiller, "task_losses"),
    "method losses": (Method, "terms"),
    "backward": (OptimWrapper, "backward"),
    "optimizer": (torch.optim.AdamW, "step"),
}
"""Where the time of each phase is spent; what is left over is the loop's own."""


def main(argv: list[str]) -> int:
    """Measure, print, and write `step.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.bench.step", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--crop", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args(argv)
    crop = tuple(arguments.crop)
    with tempfile.TemporaryDirectory() as folder:
        measured = measure_step(Path(folder), arguments.rounds, crop, arguments.batch)
    shares = measured["shares"]
    rows = [[name.replace("_", " "), f"{value:.3f}"] for name, value in measured.items() if name != "shares"]
    rows += [[f"share of {name}", f"{share:.1%}"] for name, share in shares.items()]
    title = f"HeteroAKD, {TEACHER} → {STUDENT}, {arguments.batch} × {crop[0]}×{crop[1]}, {processor()}, 1 thread"
    print_table(title, ("measured", "median"), rows)
    setting = {
        "teacher": TEACHER,
        "student": STUDENT,
        "crop": list(crop),
        "batch": arguments.batch,
        "rounds": arguments.rounds,
    }
    write_report(arguments.out, "step", setting, measured)
    return 0


def measure_step(folder: Path, rounds: int, crop: tuple[int, int], batch: int) -> dict[str, Any]:
    """A HeteroAKD iteration against its floor, phase by phase, and its loss alone.

    The floor is the teacher's forward pass and the student's forward, task loss, backward and update, and nothing else.
    Both use the same networks and batches. The loss alone is its forward and backward pass down to the student's taps.

    Returns:
        `iteration_s`, `floor_s`, `step_over_floor` (without data), `loop_share` (of the iteration, outside data,
        networks, losses and updates), `loss_share` (the method's loss, both ways), and `shares` of all phases.
    """
    cohort = build_cohort(folder, ("heteroakd", "student"), TEACHER, STUDENT, crop, batch)
    member, plain = cohort.members
    cohort.members = [member]
    teacher = cohort.teacher
    assert teacher is not None, "HeteroAKD has one"
    series: dict[str, list[float]] = {"iteration_s": [], "floor_s": [], "step_over_floor": [], "loss_share": []}
    phases: list[dict[str, float]] = []
    batches_of = cohort.batches()
    for _ in range(rounds + 1):  # the first warms up
        with _timed_phases() as spent:
            start = time.perf_counter()
            batches = next(batches_of)
            cohort.advance(batches)
            iteration = time.perf_counter() - start
        data = cohort.timing.data.seconds()[-1]
        prepared = batches[member.protocol.normalisation]
        floor = seconds(partial(_floor, teacher.network, plain.student, plain.optimizer, prepared))
        loss = _loss_alone(member, teacher, prepared)
        for name, value in zip(series, (iteration, floor, (iteration - data) / floor, loss / iteration), strict=True):
            series[name].append(value)
        spent["data"] = data
        spent["loop"] = iteration - sum(spent.values())
        phases.append({name: value / iteration for name, value in spent.items()})
    shares = {name: statistics.median(each[name] for each in phases[1:]) for name in phases[0]}
    medians = {name: statistics.median(values[1:]) for name, values in series.items()}
    return {**medians, "loop_share": shares["loop"], "shares": shares}


def _floor(teacher: Any, student: Any, optimizer: Any, batch: Batch) -> None:
    """What no implementation can do without."""
    with torch.no_grad():
        forward_taps(teacher, batch.inputs, ("logits",))
    student.train()
    losses = task_losses(student, forward_taps(student, batch.inputs, ("logits",)), batch.target)
    optimizer.update_params(sum(losses.values()))


def _loss_alone(member: Member, teacher: Teacher, batch: Batch) -> float:
    """Seconds of the method's losses, forward and backward, on the taps of a batch."""
    with torch.no_grad():
        student_taps = forward_taps(member.student, batch.inputs, member.method.taps)
    teacher_taps = teacher.taps(batch.inputs, member.method.taps)
    for x in student_taps.values():
        x.requires_grad_()
    took = seconds(lambda: added(member.method.terms(student_taps, teacher_taps, batch.target, 0).values()).backward())
    member.method.zero_grad()
    return took


@contextmanager
def _timed_phases() -> Iterator[dict[str, float]]:
    """Seconds spent in each phase while it is open."""
    spent = dict.fromkeys(PHASES, 0.0)

    def timed(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[phase] += time.perf_counter() - start

        return wrapper

    with ExitStack() as patches:
        for phase, (owner, name) in PHASES.items():
            patches.enter_context(patch.object(owner, name, timed(phase, getattr(owner, name))))
        yield spent


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
