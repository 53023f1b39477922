"""What is committed below results/ follows from the records there, and the README shows it as it is."""

import json
from pathlib import Path

import pytest

from benchmark.cli.__main__ import main
from benchmark.records.areas import read_areas
from benchmark.records.record import records

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
RECORDS = records(RESULTS / "records")


def test_there_are_records():
    assert RECORDS


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.id)
def test_every_record_was_made_by_committed_code_and_agrees_with_its_areas(record):
    from benchmark.core.files import file_sha256
    from benchmark.records.areas import scores

    areas = RESULTS / "records" / record.id / "areas.npz"
    assert not record.provenance.dirty
    assert file_sha256(areas) == record.areas_sha256
    assert scores(read_areas(areas)[1]).miou == record.result.last.miou


def test_the_tables_are_not_stale(tmp_path):
    assert main(["tables", "--work-dir", str(RESULTS / "records"), "--out", str(tmp_path), "--format", "md,csv"]) == 0
    made = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert made == {file.name: file.read_bytes() for file in (RESULTS / "tables").iterdir()}


@pytest.mark.slow
def test_the_figures_are_not_stale(tmp_path):
    assert main(["figures", "--work-dir", str(RESULTS / "records"), "--out", str(tmp_path)]) == 0
    data = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.suffix in (".csv", ".txt")}
    committed = (RESULTS / "figures").iterdir()
    assert data == {file.name: file.read_bytes() for file in committed if file.suffix in (".csv", ".txt")}


def test_the_readme_shows_the_table_as_it_is():
    readme = (ROOT / "README.md").read_text()
    table = (RESULTS / "tables" / "main-drawn-demo.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len(rows) > 5
    assert "\n".join(rows) in readme


def test_the_readme_shows_what_losses_cost_as_it_was_measured():
    rows = json.loads((RESULTS / "bench" / "losses.json").read_text())["rows"]
    shown = [line.split("|")[1:-1] for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| ")]
    found = {line[0].strip(): [cell.strip() for cell in line[1:]] for line in shown if len(line) == 7}
    for row in rows:
        place = 0 if row["teacher"] == "deeplabv3_r101" else 3
        seconds, peak, parameters = found[row["method"]][place : place + 3]
        assert float(seconds) == pytest.approx(row["seconds"], rel=0.01)
        assert (peak, parameters) == (f"{row['peak_mb']:,.0f}", f"{row['parameters']:,}")
