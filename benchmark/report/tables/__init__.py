"""Tables as data, functions of results: each builder gives the tables of one kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchmark.core.errors import unknown
from benchmark.report.tables.ablation import ablation_tables
from benchmark.report.tables.base import Cell, Section, Table
from benchmark.report.tables.classes import class_tables
from benchmark.report.tables.cost import clock_tables, cost_tables
from benchmark.report.tables.main import main_tables
from benchmark.report.tables.paper import anchor_tables, paper_tables
from benchmark.report.tables.pooled import pooled_tables
from benchmark.report.tables.reproduction import reproduction_tables
from benchmark.results.results import Results

KINDS: dict[str, Callable[[Results], list[Table]]] = {
    "reproduction": reproduction_tables,
    "main": main_tables,
    "paper": paper_tables,
    "anchors": anchor_tables,
    "ablation": ablation_tables,
    "pooled": pooled_tables,
    "cost": cost_tables,
    "wall-clock": clock_tables,
    "classes": class_tables,
}
"""The kinds of tables, in the order of a report."""


def make_tables(results: Results, names: Iterable[str] = ()) -> list[Table]:
    """All tables, or those whose kind or own name is one of `names`.

    Raises:
        KdsegError: a name that no table has (near matches are given).
    """
    chosen = list(names)
    if set(chosen) <= set(KINDS):
        return [table for name, make in KINDS.items() if name in chosen or not chosen for table in make(results)]
    tables = {table.name: (kind, table) for kind, make in KINDS.items() for table in make(results)}
    for name in chosen:
        if name not in (*tables, *KINDS):
            raise unknown("table", name, (*tables, *KINDS))
    return [table for kind, table in tables.values() if kind in chosen or table.name in chosen]


__all__ = ["KINDS", "Cell", "Section", "Table", "main_tables", "make_tables"]
