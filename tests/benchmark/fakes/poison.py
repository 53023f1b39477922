"""Methods that go wrong at a step, in the way that is asked for."""

from typing import Literal

import torch

from benchmark.method import Method


class Poison(Method):
    """NaN loss, NaN gradient, an exception, or damage to a shared tensor, at step `at`; or an exception before."""

    title = "Poison"
    source = "tests"
    version = 1
    taps = ("logits",)

    at: int = 2
    kind: Literal["loss", "gradient", "raise", "damage", "stage"] = "loss"

    def prepare(self, teacher, batches):
        if self.kind == "stage":
            next(iter(batches))
            raise RuntimeError("bad start")

    def losses(self, student, teacher, target, step):
        logits = student["logits"]
        if step == self.at:
            if self.kind == "raise":
                raise RuntimeError("bad luck")
            if self.kind == "damage":
                teacher["logits"].add_(1)
            if self.kind == "loss":
                return {"poison": logits.sum() * float("nan")}
            if self.kind == "gradient":
                return {"poison": torch.where(logits > 0, logits, 0).sum() * 0 + torch.sqrt(logits * 0).sum()}
        return {"poison": (logits - teacher["logits"].mean()).square().mean()}
