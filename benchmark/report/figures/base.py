"""What a figure is: a drawing with its data and caption; and what figures are made from."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmark.core.files import make_folder, write_bytes
from benchmark.report.figures.style import STYLE
from benchmark.results.entries import Entry, PairEntries
from benchmark.results.results import Results
from benchmark.results.stats import ENOUGH, is_hole

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

Row = dict[str, Any]

_METADATA: dict[str, dict[str, None]] = {
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
    "svg": {"Date": None},
}


@dataclass(frozen=True)
class Figure:
    """A figure: `name` is its file name, `data` its numbers in full precision, `draw` makes the drawing.

    Attributes:
        facts: what it can be filtered by: `dataset` and `pair`.
        pictures: it holds photographs, which no vector format makes smaller.
    """

    name: str
    title: str
    caption: str
    data: tuple[Row, ...]
    draw: Callable[[], Drawing] = field(repr=False)
    facts: Mapping[str, str]
    pictures: bool = False


@dataclass(frozen=True)
class Sources:
    """What figures are functions of: results, and the folder that `kdseg analyze` writes to."""

    results: Results
    work_dir: Path

    @cached_property
    def pairs(self) -> list[PairEntries]:
        """All pairs with a teacher, in the tables' order."""
        return [pair for pair in self.results.pairs if pair.teacher]

    def runs(self, entry: Entry) -> list[Row]:
        """The rows of an entry's finished runs."""
        return [row for row in self.results.runs(entry) if row is not None]

    def names(self, kind: str) -> dict[int, str]:
        """The file name of a figure of this kind for each of `pairs`, by its place; settings of one pair differ."""
        stems = [
            f"{kind}_{pair.facts['dataset']}_{pair.facts['protocol']}_{self._teacher(pair)}_{pair.facts['model']}"
            for pair in self.pairs
        ]
        keys = [f"{pair.facts['setting_key'][:4]}{(pair.teacher_id or '')[:4]}" for pair in self.pairs]
        return dict(enumerate(distinct(stems, keys)))

    def _teacher(self, pair: PairEntries) -> str:
        """The name of a pair's teacher network."""
        rows = (self.results.rows[run] for entry in pair.entries for run in entry.ids if run)
        return next((row["teacher_model"] for row in rows if row["teacher_id"] == pair.teacher_id), "")


def render(figure: Figure, kind: Literal["pdf", "png", "svg"]) -> bytes:
    """The drawing as a file. Equal figures make equal bytes: no dates, and no names of machines."""
    import matplotlib

    with matplotlib.rc_context(STYLE | {"svg.hashsalt": figure.name}):
        stream = io.BytesIO()
        figure.draw().savefig(stream, format=kind, metadata=_METADATA[kind])
    return stream.getvalue()


def write(figures: Iterable[Figure], folder: Path) -> list[Path]:
    """Write every figure as PDF and PNG, with its data (CSV) and caption (text) beside it; returns the files.

    Raises:
        KdsegError: a file cannot be written.
    """
    files: dict[Path, bytes] = {}
    for figure in figures:
        files |= {folder / f"{figure.name}.{kind}": render(figure, kind) for kind in ("pdf", "png")}
        files[folder / f"{figure.name}.csv"] = to_csv(figure.data).encode()
        files[folder / f"{figure.name}.txt"] = (figure.caption + "\n").encode()
    make_folder(folder)
    for file, content in files.items():
        write_bytes(file, content)
    return list(files)


def to_csv(data: Sequence[Row]) -> str:
    """Rows of numbers in full precision; what is not known is empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(data[0])
    writer.writerows([_field(value) for value in row.values()] for row in data)
    return stream.getvalue()


def distinct(names: Sequence[str], keys: Sequence[str]) -> list[str]:
    """`names`, each that is there more than once followed by its key."""
    return [f"{name}_{key}" if names.count(name) > 1 else name for name, key in zip(names, keys, strict=True)]


def facts(pair: PairEntries) -> dict[str, str]:
    """What a pair's figure is filtered by."""
    return {"dataset": pair.facts["dataset"], "pair": pair.title}


def place(pair: PairEntries) -> str:
    """The beginning of a caption: pair, data set, protocol, and what was changed of it."""
    row = pair.facts
    changed = ", ".join(f"{key}={value}" for key, value in sorted(row["overrides"].items()))
    return f"{pair.title}, {row['dataset']}, protocol {row['protocol']}" + (f" with {changed}" if changed else "") + "."


def few(n: int) -> list[str]:
    """The warning of a caption where something shown has `n` seeds."""
    return [f"No conclusion can be drawn from fewer than {ENOUGH} seeds."] if n < ENOUGH else []


def _field(value: Any) -> Any:
    if is_hole(value):
        return ""
    return repr(value) if isinstance(value, float) else value
