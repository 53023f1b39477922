import csv
import io

import pytest
from rich.console import Console

from benchmark.core.errors import KdsegError
from benchmark.report.tables import Cell, Section, Table, main_tables
from benchmark.report.writers import to_csv, to_markdown, to_terminal, write_tables
from benchmark.results.results import Results
from tests.benchmark.builders import heteroakd, pair_records, setting


def table(*settings) -> Table:
    (only,) = main_tables(Results.of(pair_records(*settings)))
    return only


def test_markdown_marks_footnotes_and_escapes() -> None:
    rows = ((Cell("a|b_c", ("why <b>", "too")), Cell("1.00", ("too",), bold=True)),)
    made = Table("t", "T", (Section("S", "set", ("M", "N"), rows),), ("C.",), ())
    assert to_markdown(made) == (
        "## T\n\n### S\n\nset\n\n| M | N |\n|:--|--:|\n| a\\|b\\_c<sup>a,b</sup> | **1.00**<sup>b</sup> |\n\n"
        "<sup>a</sup> why &lt;b&gt;  \n<sup>b</sup> too  \n\nC.\n"
    )


def test_csv_has_full_precision_and_empty_holes() -> None:
    made = table((setting("kd"), (50.1, 52.3, 54.7)), (setting("cwd"), (50.0, None, 50.0)))
    rows = {row["variant"]: row for row in csv.DictReader(io.StringIO(to_csv(made)))}
    kd, cwd = rows["KD"], rows["CWD"]
    assert [float(kd[f"miou_seed_{seed}"]) for seed in range(3)] == [50.1, 52.3, 54.7]
    assert float(kd["miou_mean"]) == pytest.approx(52.366666666666667, abs=1e-12)
    assert float(kd["delta_p"]) == 0.25
    assert (cwd["n"], cwd["expected"]) == ("2", "3")
    assert {cwd["miou_mean"], cwd["delta_mean"], cwd["miou_seed_1"]} == {""}
    assert cwd["missing"] == "seed 1: diverged at iteration 37 (loss is not finite)"


def test_equal_records_make_equal_bytes(tmp_path) -> None:
    made = pair_records((setting("kd"), (50.5, 52.0, 54.5)), (heteroakd(), (50.5, None, 54.5)))
    written = [
        write_tables(main_tables(Results.of(each)), tmp_path / name, ["md", "csv"])
        for name, each in (("a", made), ("b", made[::-1]))
    ]
    assert [file.name for file in written[0]] == ["main-drawn-demo.md", "main-drawn-demo.csv"]
    assert [file.read_bytes() for file in written[0]] == [file.read_bytes() for file in written[1]]


def test_a_format_nobody_knows_writes_nothing(tmp_path) -> None:
    with pytest.raises(KdsegError, match="unknown format 'cvs'; did you mean csv"):
        write_tables([table()], tmp_path / "out", ["md", "cvs"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_whole_numbers(width) -> None:
    console = Console(width=width, file=io.StringIO())
    long = heteroakd("HeteroAKD: control, projector supervision only", lambda1=0.0, lambda2=0.0)
    console.print(to_terminal(table((long, (50.5, 52.0, 54.5)), (setting("kd"), (50.0, None, 50.0)))))
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    for part in ("52.33 ± 2.02", "+1.33 ± 1.04", "s/iteration", "–ᵃ", "ᵃ seed 1: diverged at iteration 37"):
        assert part in shown
    assert ("50.50, 52.00, 54.50" in shown) == (width == 120)
