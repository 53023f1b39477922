"""The data files that analyses write below a work directory's `analysis/`, and that figures read. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeVar

from benchmark.core.errors import KdsegError
from benchmark.core.files import make_folder, write_json
from benchmark.core.schema import Frozen, parse, read_json

FOLDER = "analysis"
SCHEMA: Literal[1] = 1


class Origin(Frozen):
    """What an analysis was made of: code, data set, protocol, and a hash of the images' names and sizes."""

    schema_version: Literal[1] = SCHEMA
    dataset: str
    protocol: str
    list_hash: str
    commit: str
    dirty: bool


class Similarity(Frozen):
    """A student beside its teacher.

    Attributes:
        run, teacher_id: the student's run, and the source of its teacher.
        teacher, student, heterogeneous: titles of the networks, and whether they are of two families.
        method, variant, seed: what the student was taught with.
        values: CKA of their taps: teacher's tap -> student's tap -> value; None: not defined.
    """

    run: str
    teacher_id: str
    teacher: str
    student: str
    heterogeneous: bool
    method: str
    variant: str
    seed: int
    values: dict[str, dict[str, float | None]]


class Similarities(Frozen):
    """What `kdseg analyze cka` found on `images` images, `batch` a mini-batch, taps pooled to `grid`² cells."""

    origin: Origin
    images: int
    batch: int
    grid: int
    rows: tuple[Similarity, ...]


class PanelCell(Frozen):
    """What one network says of one image; `errors` is the share of labelled pixels it has wrong, in percent."""

    run: str
    file: str
    miou: float
    errors: float


class PanelRow(Frozen):
    """One image of a pair's panels, at a quantile of the per-image mIoU of the student alone."""

    name: str
    quantile: float
    student: str
    image: str
    truth: str
    cells: tuple[PanelCell, ...]


class Panels(Frozen):
    """What `kdseg analyze panels` chose and predicted for one pair: rows of images; the first cell is the teacher's."""

    origin: Origin
    teacher_id: str
    seed: int
    rows: tuple[PanelRow, ...]


T = TypeVar("T", Similarities, Panels)
_PATTERNS = {Similarities: "cka_*.json", Panels: "panels_*/panels.json"}


def write(content: Similarities | Panels, file: Path) -> Path:
    """Write an analysis as JSON."""
    make_folder(file.parent)
    write_json(file, content.model_dump(mode="json"))
    return file


def read_all(kind: type[T], work_dir: Path) -> Iterable[tuple[Path, T]]:
    """All analyses of a kind in a work directory, with their files, in the order of their names.

    Raises:
        KdsegError: one that is damaged or of another schema.
    """
    for file in sorted((Path(work_dir) / FOLDER).glob(_PATTERNS[kind])):
        data = read_json(file)
        origin = data.get("origin") if isinstance(data, dict) else None
        version = origin.get("schema_version") if isinstance(origin, dict) else None
        if version != SCHEMA:
            raise KdsegError(f"{file}: has schema {version}, this version reads {SCHEMA}; run kdseg analyze again")
        yield file, parse(kind, data, str(file))
