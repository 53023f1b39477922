"""Figures as functions of results and analyses: a module a kind, `base` what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from benchmark.core.errors import KdsegError
from benchmark.report.figures.base import Figure, Sources, render, write
from benchmark.report.figures.classes import class_figures
from benchmark.report.figures.cost import cost_figures
from benchmark.report.figures.curves import curve_figures
from benchmark.report.figures.figure6 import figure6
from benchmark.report.figures.panels import panel_figures
from benchmark.report.figures.similarity import similarity_figures

KINDS: dict[str, Callable[[Sources], list[Figure]]] = {
    "6": figure6,
    "classes": class_figures,
    "cost": cost_figures,
    "curves": curve_figures,
    "cka": similarity_figures,
    "panels": panel_figures,
}
"""The kinds of figures, in the order of a report. Each raises one line that says what it lacks."""


class Made(NamedTuple):
    """Figures, and per kind that could not be made the reason."""

    figures: list[Figure]
    reasons: dict[str, str]


def make_figures(sources: Sources, kinds: Iterable[str] = ()) -> Made:
    """The figures of these kinds; none given: all for which there are data."""
    figures: list[Figure] = []
    reasons: dict[str, str] = {}
    for kind in kinds or KINDS:
        try:
            figures.extend(KINDS[kind](sources))
        except KdsegError as error:
            reasons[kind] = str(error)
    return Made(figures, reasons)


__all__ = ["KINDS", "Figure", "Made", "Sources", "make_figures", "render", "write"]
