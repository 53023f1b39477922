"""Numbers that others published, read from `results/published/`: the code itself holds none.

One file per source. A cell that is known to exist and not to us is `unknown`; fill it in, and every table follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from benchmark.core.errors import unknown
from benchmark.core.paths import PUBLISHED
from benchmark.core.schema import Frozen, parse, read_yaml
from benchmark.spec.methods import UNDER_TEST

UNKNOWN = "unknown"
"""What stands for a value, protocol or selection that is not known to us."""

TEACHER, STUDENT = "teacher", "student"
"""The methods of rows that no method made: the teacher itself, and the student alone."""


class Kind(StrEnum):
    """Who says it. Only `reported` is the authors' word on their own training."""

    REPORTED = "reported"
    SECOND_HAND = "second-hand"
    RE_RUN = "re-run by others"
    USER_CLAIM = "user claim"


def _value(value: Any) -> Any:
    if value is None:
        raise ValueError(f"is empty; write a number, or {UNKNOWN}")
    return None if value == UNKNOWN else value


Selection = Literal["last", "best_val", "best_test", "unknown"]
Percent = Annotated[Annotated[float, Field(ge=0, le=100)] | None, BeforeValidator(_value)]
Points = Annotated[Annotated[float, Field(ge=-100, le=100)] | None, BeforeValidator(_value)]


class Claim(Frozen):
    """A published statement that is no cell of a table.

    Attributes:
        where: its place in the source.
        value: None: `unknown`.
        unknown: what it would take to compare with it and is not known to us.
    """

    name: str
    where: str
    quantity: str
    value: Points
    unit: Literal["points", "percent"]
    kind: Kind
    unknown: str | None = None


class Column(Frozen):
    """The networks of a table's column, by our names (empty: we have none such), and where its protocol differs."""

    name: str
    student: str = ""
    teacher: str = ""
    protocol: str | None = None


class PublishedRow(Frozen):
    """A row of a table.

    Attributes:
        method: our name of what made it: a method, a recipe `method@codebase`, `teacher` or `student`; empty: none.
        variants: the names of our settings of `method` that it is compared with.
        values: column -> mIoU in percent, or None for `unknown`; a column that is not named was not reported.
        kind, protocol, selection: where they differ from the table's.
        assumed: what has to be assumed to compare with it.
    """

    name: str
    method: str = ""
    variants: tuple[str, ...] = ()
    values: dict[str, Percent]
    kind: Kind | None = None
    protocol: str | None = None
    selection: Selection | None = None
    note: str = ""
    assumed: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _method_has_variants(self) -> Self:
        if bool(self.variants) == (self.method in ("", TEACHER, STUDENT)):
            raise ValueError(f"row {self.name}: variants belong to a method of ours, and each such row names some")
        return self


class PublishedTable(Frozen):
    """A table as it was published, in its order.

    Attributes:
        where: its place in the source.
        protocol: one of ours, a description of another one, or `unknown`; `protocol_inferred`: nobody states it.
        initial: what the networks' backbones started from.
        sweep: the file of `slurm/sweeps/` that trains it here.
    """

    name: str
    title: str
    where: str
    dataset: str
    split: Literal["val", "test"] = "val"
    protocol: str
    protocol_inferred: bool = False
    selection: Selection
    initial: Literal["imagenet", "scratch"] = "imagenet"
    kind: Kind
    note: str = ""
    sweep: str = ""
    columns: tuple[Column, ...]
    rows: tuple[PublishedRow, ...]

    @model_validator(mode="after")
    def _values_have_columns(self) -> Self:
        names = [column.name for column in self.columns]
        for row in self.rows:
            for name in row.values:
                if name not in names:
                    raise ValueError(str(unknown("column", name, names, f"table {self.name}, row {row.name}")))
        return self


class Publication(Frozen):
    """What one source published; `datasets` are those it reports on."""

    paper: str
    title: str
    citation: str
    arxiv: str | None = None
    url: str | None = None
    datasets: tuple[str, ...]
    claims: tuple[Claim, ...] = ()
    tables: tuple[PublishedTable, ...] = ()

    def claim(self, name: str) -> Claim:
        """The claim called `name`; an unknown one is an error with near matches."""
        claims = {claim.name: claim for claim in self.claims}
        if name not in claims:
            raise unknown("claim", name, claims, self.paper)
        return claims[name]


@dataclass(frozen=True)
class Number:
    """One cell of a published table, with all that holds for it. `value` in percent, None if it is unknown to us.

    Attributes:
        delta: in points, against the student alone of the same table and column; None: `delta_reason` says why.
    """

    paper: str
    source: str
    table: PublishedTable
    row: PublishedRow
    column: Column
    value: float | None
    delta: float | None
    delta_reason: str

    @property
    def protocol(self) -> str:
        """Of the row, else the column, else the table."""
        return self.row.protocol or self.column.protocol or self.table.protocol

    @property
    def selection(self) -> Selection:
        """Which checkpoint it is of."""
        return self.row.selection or self.table.selection

    @property
    def kind(self) -> Kind:
        """Who says it."""
        return self.row.kind or self.table.kind


def papers() -> list[str]:
    """All sources, HeteroAKD's paper first."""
    names = sorted(path.stem for path in PUBLISHED.glob("*.yaml"))
    return sorted(names, key=lambda name: name != UNDER_TEST)


@cache
def publication(paper: str) -> Publication:
    """What is known to be published in `paper`.

    Raises:
        KdsegError: there is no such file, or it is wrong.
    """
    if paper not in papers():
        raise unknown("source", paper, papers())
    return read_publication(PUBLISHED / f"{paper}.yaml")


def read_publication(path: Path) -> Publication:
    """Read and check one file; what is wrong in it is named with its place."""
    return parse(Publication, read_yaml(path), path.name)


def numbers(source: Publication) -> list[Number]:
    """All cells of all tables of a source, column by column, in its order."""
    return [cell for table in source.tables for cell in table_numbers(source, table)]


def table_numbers(source: Publication, table: PublishedTable) -> list[Number]:
    """All cells of one table of a source, column by column."""
    cells = [(row, column) for column in table.columns for row in table.rows if column.name in row.values]
    return [_number(source, table, row, column) for row, column in cells]


def _number(source: Publication, table: PublishedTable, row: PublishedRow, column: Column) -> Number:
    value = row.values[column.name]
    number = Number(source.paper, source.title, table, row, column, value, None, "")
    if row.method in (TEACHER, STUDENT):
        return number
    alone = next((other for other in table.rows if other.method == STUDENT and column.name in other.values), None)
    reason, delta = "", None
    if alone is None:
        reason = "no student alone beside it"
    else:
        student = Number(source.paper, source.title, table, alone, column, alone.values[column.name], None, "")
        if value is None or student.value is None:
            reason = "unknown to us" if value is None else "its student alone is unknown to us"
        elif (student.protocol, student.selection) != (number.protocol, number.selection):
            reason = f"its student alone is of {student.protocol}, checkpoint {student.selection}; itself of "
            reason += f"{number.protocol}, checkpoint {number.selection}"
        else:
            delta = value - student.value
    return Number(source.paper, source.title, table, row, column, value, delta, reason)
