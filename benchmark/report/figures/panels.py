"""Qualitative panels: image, truth, teacher, student alone, methods, and below each prediction where it is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.core.errors import KdsegError
from benchmark.records.analyses import PanelRow, Panels, read_all
from benchmark.report.figures.base import Figure, Sources, facts, place
from benchmark.report.figures.style import PAGE, canvas
from benchmark.results.entries import Entry, PairEntries
from benchmark.spec import definitions
from benchmark.spec.definitions import IGNORE
from benchmark.spec.methods import UNDER_TEST

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

SHOWN = 4
"""Methods that a page has room for."""
RIGHT, WRONG, UNLABELLED = (225, 225, 225), (213, 94, 0), (255, 255, 255)
"""Colours of the error maps."""

Column = tuple[str, str]
"""Heading, run id."""


def panel_figures(sources: Sources) -> list[Figure]:
    """One figure per analysed pair.

    Raises:
        KdsegError: `kdseg analyze panels` was not run, its runs are not among the records, or a PNG is gone.
    """
    figures = [
        _figure(file, content, pair, sources)
        for file, content in read_all(Panels, sources.work_dir)
        if (pair := _pair(content, sources))
    ]
    if not figures:
        raise KdsegError(
            f"panels: needs `kdseg analyze panels --work-dir {sources.work_dir}`, for runs that have records"
        )
    return figures


def _pair(content: Panels, sources: Sources) -> PairEntries | None:
    student = content.rows[0].student
    of = [pair for pair in sources.pairs if pair.teacher_id == content.teacher_id]
    return next((pair for pair in of if any(student in entry.ids for entry in pair.entries)), None)


def _figure(file: Path, content: Panels, pair: PairEntries, sources: Sources) -> Figure:
    columns = _columns(content, pair)
    data = tuple(
        {
            "image": row.name,
            "quantile": row.quantile,
            "column": heading,
            "miou": cell.miou,
            "errors": cell.errors,
            "run": cell.run,
        }
        for row in content.rows
        for heading, run in columns
        for cell in row.cells
        if cell.run == run
    )
    for row in content.rows:
        for name in (row.image, row.truth, *(cell.file for cell in row.cells)):
            if not (file.parent / name).is_file():
                raise KdsegError(f"panels: {file.parent / name} is gone; run kdseg analyze panels again")
    return Figure(
        name=file.parent.name,
        title="Predictions side by side",
        caption=_caption(content, pair, columns),
        data=data,
        draw=partial(_draw, file.parent, content, columns),
        facts=facts(pair),
        pictures=True,
    )


def _columns(content: Panels, pair: PairEntries) -> list[Column]:
    """Teacher, student alone, the method under test at its defaults, and the best of the others by mean mIoU."""
    analysed = {cell.run for cell in content.rows[0].cells}

    def run(entry: Entry) -> str | None:
        return next((run for run in entry.ids if run in analysed and run != content.teacher_id), None)

    methods = [
        (entry.miou.mean, entry) for entry in pair.entries if entry.role == "method" and entry.miou and run(entry)
    ]
    tested = [entry for _, entry in methods if entry.method == UNDER_TEST and not set("(:") & set(entry.variant)]
    others = [(mean, entry) for mean, entry in methods if entry.method != UNDER_TEST]
    best = [entry for _, entry in sorted(others, key=lambda item: item[0], reverse=True)]
    chosen = [*best[: SHOWN - len(tested[:1])], *tested[:1]]
    ordered = [entry for entry in pair.entries if entry in chosen]
    alone = next(entry for entry in pair.entries if entry.role == "student")
    return [
        ("Teacher", content.teacher_id),
        ("Student alone", run(alone) or ""),
        *((entry.label, run(entry) or "") for entry in ordered),
    ]


def _caption(content: Panels, pair: PairEntries, columns: Sequence[Column]) -> str:
    names = ", ".join(row.name for row in content.rows)
    quantiles = ", ".join(f"{row.quantile:.0%}" for row in content.rows)
    return (
        f"Predictions: {place(pair)} Nobody chose the images: they stand at the {quantiles} quantiles (hard to easy) "
        f"of all validation images by per-image mIoU of the student alone ({names}). Below each prediction its errors "
        "(orange; white: not labelled), above it its mIoU on that image, over the classes with a pixel in truth or "
        f"prediction. Seed {content.seed}, weights of the last iteration. Methods: HeteroAKD at its defaults, and of "
        f"the others the {SHOWN - 1} with the highest mean mIoU of those analysed: "
        f"{', '.join(heading for heading, _ in columns[2:]) or 'none'}. Single images show what errors look like, "
        "not which method is better."
    )


def _draw(folder: Path, content: Panels, columns: Sequence[Column]) -> Drawing:
    import numpy as np
    from matplotlib.patches import Patch
    from PIL import Image

    dataset = definitions.dataset(content.origin.dataset)
    palette = np.full((256, 3), 255, np.uint8)
    palette[: len(dataset.palette)] = dataset.palette
    truths = [np.asarray(Image.open(folder / row.truth)) for row in content.rows]
    height, width = truths[0].shape
    side = PAGE / (2 + len(columns))
    figure = canvas(PAGE, 0.75 + sum((2 * side * height / width + 0.14) for _ in content.rows))
    axes = figure.subplots(2 * len(content.rows), 2 + len(columns), squeeze=False)
    figure.set_layout_engine("constrained", w_pad=0.012, h_pad=0.012, wspace=0, hspace=0, rect=(0, 0, 1, 0.99))
    for place_, line in enumerate(axes):
        for ax in line:
            ax.axis("off")
            ax.set_anchor("N" if place_ % 2 else "S")  # a prediction and its errors touch
    headings = ["Image", "Truth", *(heading for heading, _ in columns)]
    for number, (row, truth) in enumerate(zip(content.rows, truths, strict=True)):
        above, below = axes[2 * number], axes[2 * number + 1]
        above[0].imshow(np.asarray(Image.open(folder / row.image)))
        above[1].imshow(palette[truth])
        text = f"{row.name[:24]}\n{row.quantile:.0%} quantile"
        middle = {"ha": "center", "va": "center", "transform": below[0].transAxes}
        below[0].text(0.5, 0.75, text, fontsize=5.5, wrap=True, **middle)
        for column, (_, run) in enumerate(columns, 2):
            _prediction(above[column], below[column], row, run, folder, palette, truth)
    for ax, heading in zip(axes[0], headings, strict=True):
        text = heading if len(heading) < 18 else heading[:16] + "…"
        ax.annotate(
            text,
            (0.5, 1),
            xytext=(0, 10),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            fontsize=6.5,
        )
    present = [label for label in np.unique(np.concatenate([truth.ravel() for truth in truths])) if label != IGNORE]
    patches = [Patch(color=_colour(dataset.palette[label]), label=dataset.classes[label]) for label in present[:24]]
    patches.append(Patch(color=_colour(WRONG), label="wrong"))
    figure.legend(
        handles=patches,
        loc="outside lower center",
        ncols=min(12, len(patches)),
        frameon=False,
        fontsize=6,
        handlelength=1,
        handleheight=1,
        columnspacing=1,
    )
    return figure


def _colour(pixel: tuple[int, int, int]) -> tuple[float, float, float]:
    """A pixel's colour as matplotlib takes it."""
    red, green, blue = pixel
    return red / 255, green / 255, blue / 255


def _prediction(above: Any, below: Any, row: PanelRow, run: str, folder: Path, palette: Any, truth: Any) -> None:
    import numpy as np
    from PIL import Image

    cell = next(cell for cell in row.cells if cell.run == run)
    labels = np.asarray(Image.open(folder / cell.file))
    above.imshow(palette[labels])
    above.set_title(f"{cell.miou:.1f} %", fontsize=5.5, pad=1.5)
    errors = np.full((*truth.shape, 3), UNLABELLED, np.uint8)
    errors[(truth != IGNORE) & (labels == truth)] = RIGHT
    errors[(truth != IGNORE) & (labels != truth)] = WRONG
    below.imshow(errors)
