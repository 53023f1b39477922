"""What other memory and number formats, threads and processes make of a training step on a CPU: `formats.json`.

`python -m benchmark.bench.formats`, part of `make bench`. Training uses none of them; this says what they would bring.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmark.bench.base import OUT, print_table, seconds, write_report
from benchmark.core.environment import processor
from benchmark.core.schema import Frozen
from benchmark.method.blocks import added
from benchmark.models.build import build_network, forward_taps
from benchmark.models.segmentation import task_losses
from benchmark.runtime.randomness import stream

CLASSES = 19
PAIRS = (
    ("segformer_mit_b0", "deeplabv3_mbv2"),
    ("deeplabv3_mbv2", "segformer_mit_b0"),
    ("deeplabv3_r18", "pspnet_r18"),
)


class Form(Frozen):
    """How a step is computed."""

    channels_last: bool = False
    bfloat16: bool = False
    threads: int = 1


FORMS = {
    "plain": Form(),
    "channels_last": Form(channels_last=True),
    "bfloat16": Form(bfloat16=True),
    "bfloat16, channels_last": Form(bfloat16=True, channels_last=True),
    "2 threads": Form(threads=2),
}


def main(argv: list[str]) -> int:
    """Measure, print, and write `formats.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.bench.formats", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args(argv)
    rows, measured = [], []
    for teacher, student in PAIRS:
        shape = arguments.batch, 3, arguments.size, arguments.size
        # Processes first: they are forked, which a process that has used two threads must not be.
        beside = processes_beside(teacher, student, shape, arguments.rounds)
        forms = measure(teacher, student, shape, arguments.rounds)
        measured.append({"teacher": teacher, "student": student, "forms": forms, "two_processes": beside})
        rows += [
            [
                f"{teacher} → {student}, {name}",
                f"{each['teacher_over_plain']:.2f}",
                f"{each['student_over_plain']:.2f}",
                f"{each['loss_difference']:.0e}",
            ]
            for name, each in forms.items()
        ]
        rows.append([f"{teacher} → {student}, 2 processes at once", f"{beside:.2f}", f"{beside:.2f}", "0"])
    title = f"seconds over those of the plain form, {arguments.batch} × {arguments.size}², {processor()}"
    print_table(title, ("form", "teacher", "student", "loss, relative difference"), rows)
    setting = {"size": arguments.size, "batch": arguments.batch, "rounds": arguments.rounds}
    write_report(arguments.out, "formats", setting, {"pairs": measured})
    return 0


def measure(teacher: str, student: str, shape: tuple[int, ...], rounds: int) -> dict[str, dict[str, float]]:
    """Every form's forward pass of the teacher and training step of the student, in alternation.

    Returns:
        By form `teacher_s`, `student_s` and their ratios to the plain form (medians), and `loss_difference`, the
        relative difference of the first task loss from that of the plain form.
    """
    steps = {name: _Step(teacher, student, shape, form) for name, form in FORMS.items()}
    losses = {name: step.take() for name, step in steps.items()}  # warms up
    for _ in range(rounds):
        for step in steps.values():
            step.take()
    torch.set_num_threads(1)
    plain, first = steps["plain"], losses["plain"]

    def ratio(own: list[float], others: list[float]) -> float:
        return statistics.median(a / b for a, b in zip(own[1:], others[1:], strict=True))

    return {
        name: {
            "teacher_s": statistics.median(step.teacher_s[1:]),
            "student_s": statistics.median(step.student_s[1:]),
            "teacher_over_plain": ratio(step.teacher_s, plain.teacher_s),
            "student_over_plain": ratio(step.student_s, plain.student_s),
            "loss_difference": abs(losses[name] - first) / first,
        }
        for name, step in steps.items()
    }


def processes_beside(teacher: str, student: str, shape: tuple[int, ...], rounds: int) -> float:
    """Seconds of a plain step in each of two processes at once, over those of one alone: 1 is a perfect division."""
    work = teacher, student, shape, rounds
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        alone = pool.apply(_plain_seconds, work)
    with context.Pool(2) as pool:
        both = [pool.apply_async(_plain_seconds, work) for _ in range(2)]
        return statistics.mean(each.get() for each in both) / alone


def _plain_seconds(teacher: str, student: str, shape: tuple[int, ...], rounds: int) -> float:
    step = _Step(teacher, student, shape, Form())
    for _ in range(rounds + 1):
        step.take()
    return statistics.median(a + b for a, b in zip(step.teacher_s[1:], step.student_s[1:], strict=True))


class _Step:
    """A pair of networks in one form, and how long each part of their steps took."""

    def __init__(self, teacher: str, student: str, shape: tuple[int, ...], form: Form) -> None:
        self.form = form
        with stream(0, "bench", teacher, student):
            self.teacher = self._formed(build_network(teacher, CLASSES).eval().requires_grad_(False))
            self.student = self._formed(build_network(student, CLASSES).train())
            self.inputs = torch.randn(shape)
            self.target = torch.randint(0, CLASSES, (shape[0], *shape[2:]))
        if form.channels_last:
            self.inputs = self.inputs.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.student.parameters(), lr=1e-3)
        self.teacher_s: list[float] = []
        self.student_s: list[float] = []

    def _formed(self, network: nn.Module) -> nn.Module:
        if not self.form.channels_last:
            return network
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it

    def take(self) -> float:
        """One step; returns its loss."""
        torch.set_num_threads(self.form.threads)
        self.teacher_s.append(seconds(self._teach))
        self.student_s.append(seconds(self._train))
        return self.loss

    def _autocast(self) -> Any:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.form.bfloat16)

    def _teach(self) -> None:
        with torch.no_grad(), self._autocast():
            forward_taps(self.teacher, self.inputs)

    def _train(self) -> None:
        with stream(0, "dropout"), self._autocast():
            taps = forward_taps(self.student, self.inputs)
        taps = {name: tap.float() for name, tap in taps.items()}
        loss = added(task_losses(self.student, taps, self.target).values())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.loss = loss.item()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
