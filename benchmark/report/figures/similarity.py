"""CKA: how alike students and teachers see images, pairs of one family beside pairs of two."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from benchmark.core.errors import KdsegError
from benchmark.records.analyses import Similarities, Similarity, read_all
from benchmark.report.figures.base import Figure, Row, Sources, few
from benchmark.report.figures.style import BLACK, BLUE, PAGE, VERMILLION, canvas
from benchmark.results.entries import variant_order
from benchmark.spec.methods import STUDENT, UNDER_TEST

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing
    from matplotlib.image import AxesImage

TAPS = {"c1": "1", "c2": "2", "c3": "3", "c4": "4", "pre_classifier": "head", "logits": "logits"}
"""Taps and what axes call them: the backbone's stages, the classifier's input, its output."""
ALONE = "Student alone"
COMPARED = "c4"
"""The tap by which methods are compared: the last stage, which feature distillation works on."""


def similarity_figures(sources: Sources) -> list[Figure]:
    """One figure per analysis: a matrix of taps for the student alone of each pair, and all methods at one tap.

    Raises:
        KdsegError: `kdseg analyze cka` was not run.
    """
    figures = [_figure(file, content) for file, content in read_all(Similarities, sources.work_dir)]
    if not figures:
        raise KdsegError(f"cka: needs `kdseg analyze cka --work-dir {sources.work_dir}`")
    return figures


def _figure(file: Path, content: Similarities) -> Figure:
    data = tuple(_rows(content))
    pairs = "\n".join(dict.fromkeys(row["pair"] for row in data))
    return Figure(
        name=file.stem,
        title="CKA of students with their teachers",
        caption=_caption(content, data),
        data=data,
        draw=partial(_draw, data),
        facts={"dataset": content.origin.dataset, "pair": pairs},
    )


def _rows(content: Similarities) -> Iterator[Row]:
    """One row per run and pair of taps: homogeneous pairs first, methods in the tables' order."""
    titles = [f"{row.teacher} → {row.student}" for row in content.rows]
    several = {
        title
        for title in titles
        if len({r.teacher_id for r, t in zip(content.rows, titles, strict=True) if t == title}) > 1
    }
    pairs = {
        id(row): title + (f" [{row.teacher_id[:6]}]" if title in several else "")
        for row, title in zip(content.rows, titles, strict=True)
    }
    for row in sorted(content.rows, key=lambda row: (row.heterogeneous, pairs[id(row)], *_order(row), row.seed)):
        for a, columns in row.values.items():
            for b, value in columns.items():
                yield {
                    "pair": pairs[id(row)],
                    "heterogeneous": row.heterogeneous,
                    "method": ALONE if row.method == STUDENT else row.variant,
                    "seed": row.seed,
                    "teacher_tap": a,
                    "student_tap": b,
                    "cka": value,
                    "run": row.run,
                }


def _order(row: Similarity) -> tuple[object, ...]:
    return row.method != STUDENT, *variant_order(row.method, row.variant)


def _caption(content: Similarities, data: Sequence[Row]) -> str:
    kinds = {row["heterogeneous"] for row in data}
    seeds = sorted({row["seed"] for row in data})
    parts = [
        f"Linear CKA of teacher and student on {content.images} validation images of {content.origin.dataset}, "
        f"protocol {content.origin.protocol}: unbiased HSIC over mini-batches of {content.batch} images (Nguyen et al. "
        f"2021). An image is one example, every tap averaged to {content.grid}×{content.grid} cells. 1: equal up to "
        "rotation and scale; 0: unrelated.",
        f"Above: the student alone, mean over seeds {', '.join(map(str, seeds))}; stages 1 to 4 of the backbone, the "
        "input of the classifier (head) and the logits. Below: the last stages of both, a circle per training, the "
        "line at the student alone.",
    ]
    if len(kinds) == 1:
        kind = "heterogeneous" if kinds == {True} else "homogeneous"
        parts.append(f"All pairs here are {kind}: there is no other kind to compare with.")
    parts.append("Weights of the last iteration; one teacher per pair. Our reconstruction, not the paper's figure.")
    return " ".join([*parts, *few(len(seeds))])


def _draw(data: Sequence[Row]) -> Drawing:
    pairs = list(dict.fromkeys(row["pair"] for row in data))
    of = [[row for row in data if row["pair"] == pair] for pair in pairs]
    below = 0.5 + 0.2 * max(len({row["method"] for row in rows}) for rows in of)
    figure = canvas(PAGE if len(pairs) > 1 else PAGE / 1.6, 2.5 + below)
    axes = figure.subplots(2, len(pairs), squeeze=False, height_ratios=(2.3, below))
    for column, rows in enumerate(of):
        kind = "heterogeneous" if rows[0]["heterogeneous"] else "homogeneous"
        axes[0, column].set_title(f"{kind}\n{rows[0]['pair']}", fontsize=7.2)
        image = _matrix(axes[0, column], [row for row in rows if row["method"] == ALONE])
        _dots(axes[1, column], rows)
    bar = figure.colorbar(image, ax=list(axes[0]), fraction=0.04, pad=0.02)
    bar.set_label("CKA", fontsize=7)
    bar.outline.set_visible(False)
    values = [row["cka"] for row in data if row["teacher_tap"] == row["student_tap"] == COMPARED]
    for ax in axes[1]:
        ax.set_xlim(min([0.0, *(value for value in values if value is not None)]) - 0.02, 1.02)
    return figure


def _matrix(ax: Axes, rows: Sequence[Row]) -> AxesImage:
    import numpy as np

    cells: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        cells.setdefault((row["teacher_tap"], row["student_tap"]), []).append(
            math.nan if row["cka"] is None else row["cka"]
        )
    table = np.array([[float(np.mean(cells.get((a, b), [math.nan]))) for b in TAPS] for a in TAPS])
    image = ax.imshow(table, cmap="cividis", vmin=0, vmax=1, origin="lower")
    for (y, x), value in np.ndenumerate(table):
        text = "–" if math.isnan(value) else f"{value:.2f}".lstrip("0") if abs(value) < 1 else "1"
        ax.text(x, y, text, ha="center", va="center", fontsize=6, color="white" if not value > 0.55 else "black")
    ax.set_xticks(range(len(TAPS)), TAPS.values(), fontsize=6.5)
    ax.set_yticks(range(len(TAPS)), TAPS.values(), fontsize=6.5)
    ax.set_xlabel("student", fontsize=7)
    ax.set_ylabel("teacher", fontsize=7)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return image


def _dots(ax: Axes, rows: Sequence[Row]) -> None:
    at_last_stage = [
        row for row in rows if row["teacher_tap"] == row["student_tap"] == COMPARED and row["cka"] is not None
    ]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    alone = [row["cka"] for row in at_last_stage if row["method"] == ALONE]
    if alone:
        ax.axvline(math.fsum(alone) / len(alone), color=BLACK, linewidth=0.9, linestyle=(0, (5, 2)))
    for row in at_last_stage:
        tested = UNDER_TEST in row["method"].lower()
        colour = VERMILLION if tested else BLACK if row["method"] == ALONE else BLUE
        ax.plot(
            row["cka"],
            methods.index(row["method"]),
            "o",
            markersize=3.2,
            markerfacecolor="white",
            markeredgecolor=colour,
            markeredgewidth=0.8,
        )
    ax.set_yticks(range(len(methods)), [fill(method, 30) for method in methods], fontsize=5.6)
    ax.set_ylim(len(methods) - 0.4, -0.6)
    ax.grid(axis="x", linewidth=0.3, alpha=0.6)
    ax.set_xlabel("CKA of the last stages", fontsize=7)
