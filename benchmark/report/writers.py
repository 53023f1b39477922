"""Tables written down: Markdown, CSV, LaTeX, HTML, and Rich for the terminal."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.core.errors import KdsegError, unknown
from benchmark.core.files import make_folder, write_bytes
from benchmark.report import typeset
from benchmark.report.tables.base import Cell, Section, Table
from benchmark.report.tables.main import PER_SEED
from benchmark.results.stats import is_hole

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table as RichTable
    from rich.text import Text

LETTERS = "abcdefghijklmnoprstuvwxyz"
"""What marks footnotes: every letter that has a superscript (q has none)."""
NAME_WIDTH = 16
"""Columns of a terminal that a row's name has at least; longer ones are folded."""
NARROW = 100
"""Columns of a terminal that the values per seed need beside all else."""
SUPERSCRIPTS = str.maketrans(LETTERS, "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ")


def to_markdown(table: Table) -> str:
    """GitHub Markdown: a heading and a table per section, then footnotes and caption."""
    marks = footnotes(table)
    lines = [f"## {_escape(table.title)}"]
    for section in table.sections:
        lines += ["", f"### {_escape(section.title)}", "", _escape(section.setting), ""]
        lines += ["| " + " | ".join(map(_escape, section.columns)) + " |"]
        lines += ["|:--" + "|--:" * (len(section.columns) - 1) + "|"]
        lines += ["| " + " | ".join(_markdown_cell(cell, marks) for cell in row) + " |" for row in section.rows]
    if marks:
        lines += ["", *(f"<sup>{mark}</sup> {_escape(note)}  " for note, mark in marks.items())]
    lines += ["", " ".join(_escape(sentence) for sentence in table.caption), ""]
    if table.missing:
        first, *commands = table.missing
        lines += [_escape(first), ""] + (["```sh", *commands, "```", ""] if commands else [])
    return "\n".join(lines)


def to_csv(table: Table) -> str:
    """One line per row of the table with its numbers in full precision; an empty field is a missing number.

    `miou_*` in percent, `delta_*` in points, `_std` sample standard deviations, `_low` and `_high` the 95 % t interval,
    `delta_p` the exact two-sided sign-flip p, `iteration_s` in seconds.
    """
    columns = dict.fromkeys(name for row in table.data for name in row if not name.startswith("miou_seed_"))
    seeds = {name for row in table.data for name in row if name.startswith("miou_seed_")}
    names = [*columns, *sorted(seeds, key=lambda name: int(name.removeprefix("miou_seed_")))]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_csv_field(row.get(name)) for name in names] for row in table.data)
    return stream.getvalue()


class TerminalTable:
    """A Rich renderable; below `NARROW` columns it leaves out the values per seed, and says so."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        """Heading and table per section, footnotes, caption."""
        from rich.text import Text

        table, marks = self.table, footnotes(self.table)
        yield Text(table.title, style="bold underline")
        for section in table.sections:
            yield Text(f"\n{section.title}", style="bold")
            yield Text(section.setting, style="dim")
            yield from _terminal_parts(section, marks, options.max_width)
        for note, mark in marks.items():
            yield Text(f"{mark.translate(SUPERSCRIPTS)} {note}")
        caption = list(table.caption)
        if options.max_width < NARROW and any(PER_SEED in section.columns for section in table.sections):
            caption.append(f"A terminal of {NARROW} columns shows the values per seed.")
        yield Text(("\n" if marks else "") + " ".join(caption), style="dim")
        if table.missing:
            yield Text("\n" + "\n".join(table.missing))


def to_terminal(table: Table) -> TerminalTable:
    """What `rich.console.Console.print` shows of a table."""
    return TerminalTable(table)


def to_latex(table: Table) -> str:
    """For a paper: `benchmark.report.typeset.to_latex`."""
    return typeset.to_latex(table, footnotes(table))


def to_html(table: Table) -> str:
    """A page of its own: `benchmark.report.typeset.to_html`."""
    return typeset.to_html(table, footnotes(table))


RENDERERS = {"md": to_markdown, "csv": to_csv, "tex": to_latex, "html": to_html}


def write_tables(tables: Sequence[Table], folder: Path, formats: Iterable[str] = tuple(RENDERERS)) -> list[Path]:
    """Write every table in every format below `folder`; returns the files. Equal tables make equal bytes.

    Raises:
        KdsegError: a format that there is not, two tables of one name, or a file that cannot be written.
    """
    chosen = list(formats)
    names = [table.name for table in tables]
    for name in chosen:
        if name not in RENDERERS:
            raise unknown("format", name, RENDERERS)
    if len(set(names)) < len(names):
        raise KdsegError(f"{folder}: two tables of one name ({', '.join(names)}) would overwrite each other")
    make_folder(folder)
    files = [(folder / f"{table.name}.{name}", RENDERERS[name](table)) for table in tables for name in chosen]
    for file, text in files:
        write_bytes(file, text.encode())
    return [file for file, _ in files]


def footnotes(table: Table) -> dict[str, str]:
    """Footnote -> its mark, in reading order: a, b, …, z, aa, ab, …"""
    notes = dict.fromkeys(
        note for section in table.sections for row in section.rows for cell in row for note in cell.notes
    )
    return dict(zip(notes, _letters(), strict=False))


def _letters() -> Iterator[str]:
    yield from LETTERS
    for prefix in _letters():
        for letter in LETTERS:
            yield prefix + letter


def _markdown_cell(cell: Cell, marks: dict[str, str]) -> str:
    text = _escape(cell.text)
    text = f"**{text}**" if cell.bold else text
    return text + (f"<sup>{','.join(marks[note] for note in cell.notes)}</sup>" if cell.notes else "")


def _escape(text: str) -> str:
    """Text that Markdown shows as it is, in a table cell too."""
    text = html.escape(" ".join(text.split()), quote=False)
    for sign in "\\|*_`[]~":
        text = text.replace(sign, f"\\{sign}")
    return text


def _csv_field(value: Any) -> str:
    if is_hole(value):
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def _terminal_parts(section: Section, marks: dict[str, str], width: int) -> Iterator[Any]:
    """The section as one Rich table, or as several side by side parts where a terminal is not wide enough."""
    hidden = {PER_SEED} if width < NARROW else set()
    shown = [column for column, name in enumerate(section.columns) if column and name not in hidden]
    texts = {column: [_terminal_cell(row[column], marks) for row in section.rows] for column in (0, *shown)}
    # Names may be folded, in cells and in the head; numbers may not.
    widths = {
        column: max([*(len(word) for word in section.columns[column].split()), *(len(text) for text in texts[column])])
        for column in shown
    }
    left = 0
    parts: list[list[int]] = []
    for column in shown:
        if left < widths[column] + 2:
            parts.append([])
            left = width - NAME_WIDTH - 3
        parts[-1].append(column)
        left -= widths[column] + 2
    for part in parts:
        yield _terminal_table(section, texts, widths, part)


def _terminal_cell(cell: Cell, marks: dict[str, str]) -> Text:
    from rich.text import Text

    text = Text(cell.text, style="bold" if cell.bold else "")
    return text.append(",".join(marks[note] for note in cell.notes).translate(SUPERSCRIPTS))


def _terminal_table(
    section: Section, texts: dict[int, list[Text]], widths: dict[int, int], part: Sequence[int]
) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable

    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(section.columns[0], min_width=NAME_WIDTH, overflow="fold")
    for column in part:
        table.add_column(section.columns[column], justify="right", width=widths[column], overflow="fold")
    for row in zip(*(texts[column] for column in (0, *part)), strict=True):
        table.add_row(*row)
    return table
