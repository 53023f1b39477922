import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from benchmark.core.paths import ROOT
from benchmark.records.record import records
from benchmark.report.tables import Cell, Section, Table, make_tables
from benchmark.report.typeset import PREAMBLE, latex_text
from benchmark.report.writers import to_html, to_latex
from benchmark.results.results import Results

RECORDS = ROOT / "results" / "records"
ROWS = ((Cell("a & b_c", ("why 50 %",)), Cell("1.00", bold=True)), (Cell("λ2 <x>"), Cell("–", ("why 50 %",))))
TABLE = Table(
    "t", "T → S", (Section("A", "seed 0", ("Method", "Δ (%)"), ROWS),), ("± is s.",), (), ("1 run.", "kdseg s")
)


def test_latex_has_booktabs_bold_and_notes() -> None:
    made = to_latex(TABLE)
    for part in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{lr}", r"\textbf{1.00}"):
        assert part in made
    assert r"a \& b\_c\textsuperscript{a} & \textbf{1.00} \\" in made
    assert r"$\lambda_2$ \textless{}x\textgreater{} & --\textsuperscript{a} \\" in made
    assert r"\textsuperscript{a}~why 50 \%" in made
    assert made.isascii()


def test_signs_that_latex_lacks_become_plain_letters() -> None:
    assert latex_text("50 % of λ1·L, n² ≥ 3 → é ①") == r"50 \% of $\lambda_1$$\cdot$L, n$^2$ $\geq$ 3 $\rightarrow$ é 1"


def test_html_is_whole_escaped_and_asks_for_nothing() -> None:
    made, opened = to_html(TABLE), []

    class Balance(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "br"):
                opened.append(tag)

        def handle_endtag(self, tag):
            assert opened.pop() == tag

    Balance().feed(made)
    assert not opened
    assert "a &amp; b_c<sup>a</sup>" in made and "<strong>1.00</strong>" in made
    assert not re.search(r"https?:|src=|<script|<link", made)


@pytest.mark.slow
def test_every_table_of_the_committed_records_compiles(tmp_path) -> None:
    """A real LaTeX takes all of them; it is required where KDSEG_REQUIRE_LATEX is 1."""
    if shutil.which("pdflatex") is None:
        if os.environ.get("KDSEG_REQUIRE_LATEX") == "1":
            pytest.fail("KDSEG_REQUIRE_LATEX is 1, but there is no pdflatex (Debian: texlive-latex-recommended)")
        pytest.skip("no pdflatex (Debian: texlive-latex-recommended)")
    tables = make_tables(Results.of(records(RECORDS)))
    for table in tables:
        (tmp_path / f"{table.name}.tex").write_text(to_latex(table))
    inputs = "\n".join(f"\\input{{{table.name}.tex}}\\clearpage" for table in tables)
    (tmp_path / "all.tex").write_text(
        f"\\documentclass{{article}}\n{PREAMBLE}\n\\begin{{document}}\n{inputs}\n\\end{{document}}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    overfull = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", done.stdout)]
    assert max(overfull, default=0) < 5
    assert (tmp_path / "all.pdf").stat().st_size > 20_000
