"""Does a published number hold? The verdict on our runs against it, on the absolute mIoU and on Δ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from benchmark.results.stats import ENOUGH, mean_std, t_quantile

TOLERANCE = 0.5
"""Points within which a number is reproduced, whatever the noise."""


class Verdict(StrEnum):
    """What can be said; `NONE`: nothing can, as the published number is unknown to us or a seed of ours is missing."""

    NOT_COMPARABLE = "not comparable"
    NOT_RUN = "not run"
    TOO_FEW = "too few seeds"
    REPRODUCED = "reproduced"
    WITHIN_NOISE = "within noise"
    NOT_REPRODUCED = "not reproduced"
    NONE = "–"


@dataclass(frozen=True)
class Judgement:
    """A verdict with what it rests on.

    Attributes:
        difference: ours − published, in points; None where there is none to take.
        noise: how far from 0 it may be by noise alone (95 %); None below `ENOUGH` seeds.
        assumed: what had to be assumed of the published number.
        reason: why there is no verdict, where there is none.
    """

    verdict: Verdict
    difference: float | None = None
    noise: float | None = None
    assumed: tuple[str, ...] = ()
    reason: str = ""

    @property
    def text(self) -> str:
        """The verdict and what it assumes, as a table says it."""
        return f"{self.verdict}, assumed: {'; '.join(self.assumed)}" if self.assumed else str(self.verdict)


def judge(ours: Sequence[float], published: float, assumed: tuple[str, ...] = ()) -> Judgement:
    """On the absolute value: mIoU per seed, in percent, against one published training.

    With d = mean − published: `reproduced` if |d| ≤ 0.5; else `within noise` if |d| ≤ t(n−1)·s·√(1 + 1/n), the
    prediction interval of one more training; else `not reproduced`.
    """
    if not ours:
        return Judgement(Verdict.NOT_RUN)
    mean, std = mean_std(ours)
    n = len(ours)
    noise = t_quantile(n - 1) * std * math.sqrt(1 + 1 / n) if n >= ENOUGH else None
    return _judged(mean - published, noise, assumed)


def judge_delta(
    deltas: Sequence[float],
    methods: Sequence[float],
    students: Sequence[float],
    published: float,
    assumed: tuple[str, ...] = (),
) -> Judgement:
    """On Δ: paired per seed here, but single and unpaired where it was published.

    As `judge`, with noise t(n−1)·√(s_Δ²/n + s_method² + s_student²).

    Args:
        deltas, methods, students: Δ (points) and mIoU (percent) of method and student, per seed.
        published: Δ of two published trainings.
    """
    if not deltas:
        return Judgement(Verdict.NOT_RUN)
    n = len(deltas)
    mean, std = mean_std(deltas)
    noise = None
    if n >= ENOUGH:
        variance = std**2 / n + mean_std(methods)[1] ** 2 + mean_std(students)[1] ** 2
        noise = t_quantile(n - 1) * math.sqrt(variance)
    return _judged(mean - published, noise, assumed)


def _judged(difference: float, noise: float | None, assumed: tuple[str, ...]) -> Judgement:
    if noise is None:
        return Judgement(Verdict.TOO_FEW, difference, None, assumed)
    # Rounding must not decide at the very edge: 74.41 − 73.91 is 0.5 on paper.
    if abs(difference) <= TOLERANCE + 1e-9:
        verdict = Verdict.REPRODUCED
    else:
        verdict = Verdict.WITHIN_NOISE if abs(difference) <= noise else Verdict.NOT_REPRODUCED
    return Judgement(verdict, difference, noise, assumed)
