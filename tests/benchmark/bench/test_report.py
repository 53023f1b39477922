import json

import pytest

from benchmark.bench.report import main


@pytest.mark.slow
def test_bench_measures_tables_of_copies_and_the_start(tmp_path) -> None:
    """That it works, with a number of records that says nothing about speed."""
    assert main(["--records", "120", "--rounds", "1", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["records"] == 120
    assert report["commands"]["tables"]["cpu_seconds"] > 0
    assert report["help_above_bare_python"]["cpu_seconds"] > 0
