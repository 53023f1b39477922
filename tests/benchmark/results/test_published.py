import pytest

from benchmark.core.errors import KdsegError
from benchmark.core.paths import PUBLISHED, ROOT
from benchmark.method.recipes import method_setting
from benchmark.report.tables.ablation import SWEEP
from benchmark.results.published import Kind, numbers, papers, publication, read_publication
from benchmark.spec.definitions import names
from benchmark.spec.networks import networks

ALL = [number for paper in papers() for number in numbers(publication(paper))]


def one(paper: str, table: str, row: str, column: str):
    found = [
        n for n in numbers(publication(paper)) if (n.table.name, n.row.name, n.column.name) == (table, row, column)
    ]
    assert len(found) == 1
    return found[0]


def test_every_file_is_read_and_named_after_its_source() -> None:
    assert {path.stem for path in PUBLISHED.glob("*.yaml")} == set(papers())
    assert all(publication(paper).paper == paper for paper in papers())
    assert papers()[0] == "heteroakd"


def test_the_papers_own_cells_are_all_second_hand() -> None:
    cells = numbers(publication("heteroakd"))
    assert {cell.kind for cell in cells} == {Kind.SECOND_HAND}
    known = {(cell.row.name, cell.value) for cell in cells if cell.value is not None}
    assert known == {("Student alone", 73.92), ("CWD", 71.59), ("HeteroAKD", 74.91)}


def test_a_published_delta_is_taken_within_table_and_column() -> None:
    pair = "DeepLabV3-MiT-B4 → DeepLabV3-MBV2"
    assert one("heteroakd", "cityscapes", "HeteroAKD", pair).delta == pytest.approx(0.99)
    assert one("heteroakd", "cityscapes", "CWD", pair).delta == pytest.approx(-2.33)
    assert one("heteroakd", "cityscapes", "SKD", pair).delta_reason == "unknown to us"


def test_no_delta_is_taken_between_two_protocols() -> None:
    found = one("dist", "cityscapes", "DIST", "DeepLabV3-R18")
    assert found.delta is None
    assert found.delta_reason == (
        "its student alone is of cirkd, checkpoint best_val; itself of cirkd-wd5e-4, checkpoint best_val"
    )
    assert one("dist", "cityscapes", "DIST", "PSPNet-R18").delta_reason == "no student alone beside it"


def test_what_cells_name_exists() -> None:
    assert {name for cell in ALL for name in (cell.column.student, cell.column.teacher)} <= {"", *networks()}
    methods = {(cell.row.method, cell.row.variants) for cell in ALL} - {("", ()), ("teacher", ()), ("student", ())}
    assert len(methods) > 10
    for method, variants in methods:
        default = method_setting(method, {}).variant
        assert all(variant.startswith(default) for variant in variants)
    # A protocol is one of ours by its exact name, or a description: nothing in between.
    assert {cell.protocol for cell in ALL if " " not in cell.protocol} <= set(names("protocols"))


GOOD = """
paper: p
title: P
citation: c
datasets: [voc]
tables:
  - name: t
    title: T
    where: README
    dataset: voc
    protocol: cirkd
    selection: last
    kind: reported
    columns: [{name: A, student: pspnet_r18}]
    rows: [{name: S, method: student, values: {A: 70.5}}, {name: M, method: kd, variants: [KD], values: {A: unknown}}]
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("A: 70.5", "A: 170.5", "tables.0.rows.0.values.A.*less than or equal to 100, got 170.5"),
        ("A: 70.5", "A: -1", "greater than or equal to 0, got -1"),
        ("A: 70.5", "A: many", "valid number, got 'many'"),
        ("A: 70.5", "A:", "is empty; write a number, or unknown"),
        ("A: 70.5", "B: 70.5", "table t, row S: unknown column 'B'"),
        ("selection: last", "selction: last", "unknown key 'selction'; did you mean selection"),
        ("kind: reported", "kind: gossip", "'reported', 'second-hand', 're-run by others' or 'user claim'"),
        ("    title: T\n", "", "tables.0.title: Field required"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, old, new, message) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(GOOD)
    assert [number.value for number in numbers(read_publication(file))] == [70.5, None]
    file.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(KdsegError, match=f"p.yaml.*{message}"):
        read_publication(file)


def test_an_unknown_source_or_claim_names_the_near_ones() -> None:
    with pytest.raises(KdsegError, match="unknown source 'heteroakt'; did you mean heteroakd"):
        publication("heteroakt")
    with pytest.raises(KdsegError, match="unknown claim 'figure6'; did you mean figure6_minimum_gain"):
        publication("heteroakd").claim("figure6")


def test_the_sweeps_that_tables_name_train_their_pairs() -> None:
    from benchmark.core.schema import read_yaml

    sweeps = ROOT / "slurm" / "sweeps"
    named = [table for paper in papers() for table in publication(paper).tables if table.sweep]
    assert len(named) > 3
    for table in named:
        sweep = read_yaml(sweeps / f"{table.sweep}.yaml")
        pairs = {(pair["teacher"], pair["student"]) for pair in sweep["pairs"]}
        assert {(column.teacher, column.student) for column in table.columns} <= pairs
        assert (sweep["dataset"], sweep["protocol"]) == (table.dataset, table.protocol)
    assert (sweeps / f"{SWEEP}.yaml").is_file()
