"""Tables for LaTeX (booktabs) and as HTML pages, by pandas' Styler."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from benchmark.report.tables.base import Cell, Table

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

LONG = 40
"""Rows from which a table may break over pages."""

LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "−": "$-$",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "²": r"$^2$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "√": r"$\surd$",
    "Δ": r"$\Delta$",
    "λ": r"$\lambda$",
    "λ1": r"$\lambda_1$",
    "λ2": r"$\lambda_2$",
    "τ": r"$\tau$",
    "α": r"$\alpha$",
    "‖": r"$\|$",
    '"': "''",
}
"""How signs are written that LaTeX does not take as they are."""

PREAMBLE = r"\usepackage{booktabs,graphicx,longtable}"
"""What a document needs to hold these tables."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0 1.5rem; }}
thead {{ border-top: 2px solid; border-bottom: 1px solid; }}
tbody {{ border-bottom: 2px solid; }}
th, td {{ padding: .2rem .6rem; text-align: right; vertical-align: top; }}
th {{ font-weight: 600; }}
td {{ white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; white-space: normal; min-width: 10rem; }}
sup {{ line-height: 0; }}
.notes, .caption {{ font-size: .9rem; max-width: 60rem; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def to_latex(table: Table, marks: Mapping[str, str]) -> str:
    """A `table` per section (or a `longtable`, from `LONG` rows on), notes and caption as text.

    It is made to be `\\input`; the document needs `PREAMBLE`.
    """
    parts = [f"% {table.name}; needs {PREAMBLE}"]
    for section in table.sections:
        cells = [[_latex_cell(cell, marks) for cell in row] for row in section.rows]
        styled = _styler([_latex_head(name) for name in section.columns], cells)
        head = f"{latex_text(table.title)}: {latex_text(section.title)}. {latex_text(section.setting)}."
        columns = "l" + "r" * (len(section.columns) - 1)
        if len(section.rows) > LONG:
            parts.append(
                "{\\small\n"
                + styled.to_latex(hrules=True, environment="longtable", column_format=columns, caption=head).rstrip()
                + "\n}"
            )
            continue
        body = styled.to_latex(hrules=True, column_format=columns).rstrip()
        parts.append(
            f"\\begin{{table}}[htbp]\n\\centering\n\\caption{{{head}}}\n"
            f"\\resizebox{{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}}{{!}}{{%\n{body}%\n}}\n\\end{{table}}"
        )
    notes = [f"\\textsuperscript{{{mark}}}~{latex_text(note)}" for note, mark in marks.items()]
    texts = [*table.caption, *table.missing]
    text = " ".join(latex_text(sentence) for sentence in texts)
    lines = [*(f"{note}\\\\" for note in notes), text]
    return "\n\n".join([*parts, "{\\small\\noindent\n" + "\n".join(lines) + "\\par}"]) + "\n"


def to_html(table: Table, marks: Mapping[str, str]) -> str:
    """A page of its own, without scripts or anything from elsewhere."""
    escape = html.escape
    parts = [f"<h1>{escape(table.title)}</h1>"]
    for section in table.sections:
        cells = [[_html_cell(cell, marks) for cell in row] for row in section.rows]
        body = _styler([escape(name) for name in section.columns], cells).to_html(
            table_uuid="t", cell_ids=False, exclude_styles=True
        )
        parts += [f"<h2>{escape(section.title)}</h2>", f"<p>{escape(section.setting)}</p>"]
        parts.append(f'<div class="wide">\n{body.strip()}\n</div>')
    if marks:
        notes = (f"<sup>{mark}</sup> {escape(note)}" for note, mark in marks.items())
        parts.append(f'<p class="notes">{"<br>".join(notes)}</p>')
    parts.append(f'<p class="caption">{escape(" ".join(table.caption))}</p>')
    if table.missing:
        first, *commands = table.missing
        lines = "".join(f"<pre>{escape(line)}</pre>" for line in commands)
        parts.append(f'<div class="missing"><p>{escape(first)}</p>{lines}</div>')
    return PAGE.format(title=escape(table.title), body="\n".join(parts))


def _latex_head(name: str) -> str:
    """The head of a column; a pair takes two lines."""
    teacher, arrow, student = name.partition(" → ")
    return f"\\shortstack[r]{{{latex_text(teacher + arrow)}\\\\{latex_text(student)}}}" if arrow else latex_text(name)


def latex_text(text: str) -> str:
    """Text that LaTeX shows as it is; a sign that it has no way to show becomes its plain letters."""
    parts, position = [], 0
    text = " ".join(text.split())
    while position < len(text):
        for length in (2, 1):
            sign = text[position : position + length]
            if len(sign) == length and (sign in LATEX or length == 1):
                known = LATEX.get(sign, sign)
                parts.append(known if known.isascii() else _plain(sign))
                position += length
                break
    return "".join(parts)


def _plain(sign: str) -> str:
    """A letter of Western Europe as it is (LaTeX takes it), else what it decomposes to, else a question mark."""
    if sign.isalpha() and ord(sign) < 0x180:
        return sign
    return unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode() or "?"


def _styler(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> Styler:
    import pandas as pd

    # Two columns may have one name (differences of mIoU and of Δ), which a Styler refuses: numbers stand for names.
    frame = pd.DataFrame(cells, columns=range(len(columns)), dtype=object)
    names: dict[object, str] = dict(enumerate(columns))
    return frame.style.hide(axis="index").format_index(lambda column: names[column], axis="columns")


def _latex_cell(cell: Cell, marks: Mapping[str, str]) -> str:
    text = latex_text(cell.text)
    text = f"\\textbf{{{text}}}" if cell.bold else text
    return text + (f"\\textsuperscript{{{','.join(marks[note] for note in cell.notes)}}}" if cell.notes else "")


def _html_cell(cell: Cell, marks: Mapping[str, str]) -> str:
    text = html.escape(cell.text)
    text = f"<strong>{text}</strong>" if cell.bold else text
    return text + (f"<sup>{','.join(marks[note] for note in cell.notes)}</sup>" if cell.notes else "")
