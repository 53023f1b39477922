"""How commands print tables and places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def print_table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows with the keys of the first as heads of columns."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left")
    for column in rows[0] if rows else ():
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)


def say_where(places: Mapping[str, Iterable[object]]) -> None:
    """Print where things were written, each after its kind."""
    for kind, paths in places.items():
        for path in paths:
            print(f"{kind}: {path}")
