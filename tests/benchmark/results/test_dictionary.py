import csv
import json

import pytest

from benchmark.core.errors import KdsegError
from benchmark.results.dictionary import TEXTS, write_collection
from benchmark.results.frame import COLUMNS
from benchmark.results.results import Results
from tests.benchmark.builders import heteroakd, pair_records

RESULTS = Results.of(pair_records((heteroakd(lambda2=10.0), (51.25, None, 53.0))))


def test_one_row_a_run_and_a_dictionary(tmp_path) -> None:
    files = write_collection(RESULTS, tmp_path / "deep" / "runs.csv")
    rows, meanings = (list(csv.DictReader(file.open(encoding="utf-8"))) for file in files)
    assert len(rows) == 7
    assert [row["column"] for row in meanings] == list(rows[0]) == list(TEXTS)
    assert all(row["meaning"] for row in meanings)
    mine = {int(row["seed"]): row for row in rows if row["method"] == "heteroakd"}
    assert (mine[0]["miou_last"], mine[0]["delta"]) == ("51.25", "1.25")
    assert json.loads(mine[0]["hyper"])["lambda2"] == 10.0
    assert (mine[1]["miou_last"], mine[1]["delta"]) == ("", "")
    assert mine[1]["reason"] == mine[1]["delta_reason"] == "diverged at iteration 37 (loss is not finite)"


def test_the_dictionary_knows_every_column() -> None:
    assert list(TEXTS) == [*COLUMNS, "delta", "delta_reason"]


def test_another_kind_of_file_is_refused(tmp_path) -> None:
    with pytest.raises(KdsegError, match=r"is to be a CSV file, such as runs.csv"):
        write_collection(RESULTS, tmp_path / "runs.parquet")
