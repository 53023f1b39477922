"""The student without distillation: what every other method is measured against."""

from __future__ import annotations

from torch import Tensor

from benchmark.method import Method, Taps


class Student(Method):
    """No distillation: the task loss alone. The Delta of every other method is taken against this one."""

    title = "Student"
    source = "no distillation: cross-entropy of the student alone"
    version = 1
    needs_teacher = False

    def losses(self, student: Taps, teacher: Taps, target: Tensor, step: int) -> dict[str, Tensor]:
        """No terms: the harness adds the task loss."""
        return {}
