"""A method with all that makes resuming hard: a projector, an adversary, a bank, and noise from all generators."""

import random

import numpy as np
import torch
from torch import nn

from benchmark.method import Method, Part


class Bank(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.register_buffer("rows", torch.zeros(16, channels))
        self.register_buffer("next", torch.zeros((), dtype=torch.long))


class Noisy(Method):
    """Reads `c4`, keeps what it saw, and judges the student with a small adversary."""

    title = "Noisy"
    source = "tests"
    version = 1
    taps = ("c4",)

    def build(self, student, teacher):
        width = teacher["c4"].channels
        adversary = nn.Sequential(nn.Linear(width, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        return {
            "project": Part(nn.Conv2d(student["c4"].channels, width, 1), clip_norm=1.0),
            "adversary": Part(adversary, optimizer={"type": "Adam", "lr": 1e-2}),
            "bank": Part(Bank(width)),
        }

    def losses(self, student, teacher, target, step):
        ours, theirs = self.project(student["c4"]).mean((2, 3)), teacher["c4"].mean((2, 3))
        place = int(self.bank.next) % 16
        self.bank.rows[place] = theirs[random.randrange(len(theirs))] + float(np.random.rand())
        self.bank.next += 1
        noise = torch.rand_like(ours)
        fooled = torch.func.functional_call(
            self.adversary, {k: v.detach() for k, v in self.adversary.named_parameters()}, ours
        )
        judged = self.adversary(ours.detach()) - self.adversary(theirs)
        return {
            "match": (ours - self.bank.rows.mean(0) - 0.1 * noise).square().mean(),
            "generator": -0.01 * fooled.mean(),
            "adversary": judged.mean(),
        }
