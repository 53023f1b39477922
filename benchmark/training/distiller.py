"""A student and its method side by side: one forward pass, all losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmark.method import Method, Taps
from benchmark.models.build import forward_taps
from benchmark.models.segmentation import Batch, task_losses
from benchmark.runtime import distributed
from benchmark.runtime.randomness import stream

TASK_TAPS = ("logits", "aux_logits")


class Distiller(nn.Module):
    """Holds an unmodified student apart from the method's parts, so that export is `distiller.student`.

    Args:
        student: an mmseg `EncoderDecoder`.
        method: its parts attached.
        key: what the run's random streams are named by: (seed, model).
        avg_non_ignore: whether the task loss is a mean over labelled pixels only.
    """

    def __init__(self, student: nn.Module, method: Method, key: tuple[int, str], avg_non_ignore: bool = True) -> None:
        super().__init__()
        self.student, self.method = student, method
        self.seed, self.model = key
        self.avg_non_ignore = avg_non_ignore

    def forward(self, batch: Batch, teacher: Taps, iteration: int) -> dict[str, Tensor]:
        """Task and method losses by name, weighted.

        The student's dropout draws from a stream of the architecture, the method's noise from one of its own: methods
        that share a student see the same dropout. Each of several processes has streams of its own.
        """
        with stream(self.seed, "student", self.model, iteration, *distributed.noise_key()):
            taps = forward_taps(self.student, batch.inputs, (*TASK_TAPS, *self.method.taps))
            losses = task_losses(self.student, taps, batch.target, self.avg_non_ignore)
        with (
            stream(self.seed, "method", self.method.name, iteration, *distributed.noise_key()),
            torch.autocast(batch.inputs.device.type, enabled=False),
        ):
            student_taps = {name: taps[name].float() for name in self.method.taps if name in taps}
            teacher_taps = {name: teacher[name] for name in self.method.taps if name in teacher}
            losses |= self.method.terms(student_taps, teacher_taps, batch.target, iteration)
        return losses

    def method_state(self) -> dict[str, Any]:
        """Parameters and buffers of the method's parts."""
        return self.method.state_dict()
