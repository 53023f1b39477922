import numpy as np
import pytest

from benchmark.core.errors import KdsegError
from benchmark.records.areas import write_areas
from benchmark.report.tables.comparison import comparison_table
from benchmark.results.comparison import compare_runs, select
from benchmark.results.results import Results
from tests.benchmark.builders import TEACHER, heteroakd, pair_records, record, run, setting

RECORDS = pair_records(
    (setting("kd"), (51.0, 52.5, 54.0)), (setting("cwd"), (50.0, None, 53.0)), (heteroakd(), (50.0,))
)
RESULTS = Results.of(RECORDS)


def by(method: str, seed: int):
    return next(row for row in RESULTS.rows.values() if (row["method"], row["seed"]) == (method, seed))


def test_cells_are_paired_by_seed() -> None:
    made = compare_runs(RESULTS, "kd", "Student")
    # 1, 1.5, 2
    assert (made.difference.mean, made.difference.std, made.p) == (1.5, 0.5, 0.25)
    assert not made.left_out and made.images is None
    back = compare_runs(RESULTS, by("student", 0)["cell_key"], by("kd", 0)["cell_key"][:8])
    assert back.difference.values == tuple(-value for value in made.difference.values)


def test_what_has_no_partner_is_named() -> None:
    made = compare_runs(RESULTS, "kd", "cwd")
    assert made.difference.values == (1.0, 1.0)
    assert [text.split(", drawn, demo, ")[1] for text in made.left_out] == [
        "seed 1: no run of that seed on the other side",
        "seed 1: diverged at iteration 37 (loss is not finite)",
    ]
    assert "Left out: KD" in " ".join(comparison_table(made).caption)


def test_two_runs_are_a_pair_whatever_their_seeds() -> None:
    made = compare_runs(RESULTS, by("kd", 1)["id"], by("student", 0)["id"])
    assert made.difference.values == (2.5,)
    assert any("other seeds" in sentence for sentence in comparison_table(made).caption)


def test_images_are_paired_too(tmp_path) -> None:
    random = np.random.default_rng(0)
    for each in RECORDS:
        intersect = random.integers(1, 50, size=(8, 3))
        areas = np.stack([intersect, intersect + 20, intersect + 10, intersect + 10], axis=1)
        write_areas(tmp_path / f"{each.id}.npz", [f"image{place}" for place in range(8)], areas)
    results = Results.of(RECORDS, find_areas=lambda run_id: tmp_path / f"{run_id}.npz")
    made = compare_runs(results, "kd", "student")
    assert made.images.blocks == 8
    assert made.images.low < made.images.high
    assert compare_runs(results, "kd", "kd").images.high == 0.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kdd", "unknown run, cell or method 'kdd'; did you mean kd"),
        ("ffff", "unknown run, cell or method"),
    ],
)
def test_what_names_nothing_is_an_error(text, message) -> None:
    with pytest.raises(KdsegError, match=message):
        select(RESULTS, text)


def test_what_names_several_lists_their_keys_unless_the_other_side_decides() -> None:
    other = {"overrides": {"optim.lr": 0.1}}
    two = Results.of([*RECORDS, record(run(setting("kd"), teacher=TEACHER, **other)), record(run(**other))])
    with pytest.raises(KdsegError, match=r"kd: names several, give the key of one: \w{16} \(KD"):
        compare_runs(two, "kd", "student")
    assert compare_runs(two, "cwd", "student").first.startswith("CWD, SegFormer-MiT-B0")


def test_other_images_do_not_compare() -> None:
    other = record(run(setting("kd"), dataset="camvid", protocol="camvid-small"))
    with pytest.raises(KdsegError, match="cannot be compared, other dataset: camvid and drawn"):
        compare_runs(Results.of([*RECORDS, other]), other.id, by("student", 0)["id"])
