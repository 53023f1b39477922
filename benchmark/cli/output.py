"""How commands print tables and places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable


def print_table(title: str, rows: Any) -> None:
    table = RichTable(title=title or None, title_justify="left")
    for column in rows[0] if rows else ():
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)


def say_where(places: Mapping[str, Any]) -> None:
    for kind, paths in places.items():
        for path in paths:
            print(f"{kind}: {path}")
