import csv

import pytest

from benchmark.core.errors import KdsegError
from benchmark.report.figures import Sources, write
from benchmark.report.figures.figure6 import figure6 as make
from benchmark.results.published import publication
from benchmark.results.results import Results
from tests.benchmark.builders import heteroakd, record, run, setting, source

STEM = "figure6_drawn_demo_segformer_mit_b0_deeplabv3_mbv2"


def sweep(mious: dict[tuple[float, float], list], student=(50.0, 51.0), **hyper) -> list:
    """Records of the student alone and, per (lambda1, lambda2), of HeteroAKD per seed; "absent" makes none."""
    found = [record(run(seed=seed), miou) for seed, miou in enumerate(student)]
    for (lambda1, lambda2), values in mious.items():
        changes = {"lambda1": lambda1, "lambda2": lambda2} | hyper
        default = (lambda1, lambda2) == (0.1, 1.0) and not hyper
        method = heteroakd("HeteroAKD" if default else None, **changes)
        found += [record(run(method, seed, source()), v) for seed, v in enumerate(values) if v != "absent"]
    return found


STAR = {
    (0.1, 1.0): [51.0, 52.0],
    (0.01, 1.0): [50.5, 51.5],
    (1.0, 1.0): [50.0, 51.0],
    (0.1, 10.0): [52.0, 53.0],
    (0.1, 50.0): [49.0, None],
    (0.0, 0.0): [51.0, 51.0],
}


def figure6(records, folder):
    return write(make(Sources(Results.of(records), folder)), folder)


def draw(records, folder):
    return {file.suffix[1:]: file for file in figure6(records, folder)}


def data(file):
    return list(csv.DictReader(file.read_text().splitlines()))


def test_a_figure_comes_with_its_data_and_caption(tmp_path) -> None:
    files = draw(sweep(STAR), tmp_path / "figures")
    assert {file.name for file in files.values()} == {f"{STEM}.{suffix}" for suffix in ("pdf", "png", "csv", "txt")}
    assert files["pdf"].read_bytes().startswith(b"%PDF")
    assert files["png"].read_bytes().startswith(b"\x89PNG")
    rows = data(files["csv"])
    panels = {
        name: [(row["value"], row["seed"]) for row in rows if row["panel"] == name] for name in ("lambda1", "lambda2")
    }
    assert panels["lambda1"] == [(value, seed) for value in ("0.01", "0.1", "1") for seed in "01"]
    assert panels["lambda2"] == [(value, seed) for value in ("1", "10", "50") for seed in "01"]
    assert {row["fixed_value"] for row in rows if row["panel"] == "lambda1"} == {"1"}
    best = next(row for row in rows if row["value"] == "10" and row["seed"] == "1")
    assert (float(best["miou"]), float(best["delta"]), best["in_mean"]) == (53.0, 2.0, "True")
    assert [float(row["miou"]) for row in rows if row["panel"] == "student"] == [50.0, 51.0]


def test_a_setting_that_diverged_once_has_no_mean(tmp_path) -> None:
    files = draw(sweep(STAR), tmp_path)
    rows = [row for row in data(files["csv"]) if row["value"] == "50"]
    assert [(row["miou"], row["in_mean"], row["outcome"]) for row in rows] == [
        ("49.0", "False", "done"),
        ("", "False", "diverged"),
    ]
    assert "Diverged (crosses; the line breaks there): HeteroAKD (lambda1=0.1, lambda2=50.0), seed 1." in (
        files["txt"].read_text()
    )


@pytest.mark.slow
def test_means_are_over_the_seeds_that_all_settings_have(tmp_path) -> None:
    files = draw(sweep({(0.1, 1.0): [51.0, 52.0], (0.1, 10.0): [52.0, "absent"]}), tmp_path)
    assert [(row["seed"], row["in_mean"]) for row in data(files["csv"])] == [
        ("0", "True"),
        ("1", "False"),
        ("0", "True"),
        ("0", "True"),
    ]
    assert "(n = 1: 0)" in files["txt"].read_text()


def test_the_caption_says_what_a_reader_must_know(tmp_path) -> None:
    text = draw(sweep(STAR), tmp_path)["txt"].read_text()
    for part in (
        "our reconstruction",
        "+ 0.48",
        "says nothing about the paper's claim",
        "No conclusion",
        "n = 2",
    ):
        assert part in text
    assert "against lambda1 at lambda2 = 1 and against lambda2 at lambda1 = 0.1" in text
    assert "A weight of 0 is a control" in text


def test_without_all_students_there_is_no_line_for_them(tmp_path) -> None:
    files = draw(sweep(STAR, student=(50.0, None)), tmp_path)
    assert "it has no line" in files["txt"].read_text()
    assert not [row for row in data(files["csv"]) if row["panel"] == "student"]


def test_a_full_grid_is_cut_through_the_default_setting(tmp_path) -> None:
    grid = {(lambda1, lambda2): [50.0, 51.0] for lambda1 in (0.01, 0.1) for lambda2 in (1.0, 10.0)}
    rows = data(draw(sweep(grid), tmp_path)["csv"])
    assert {(row["panel"], row["fixed_value"]) for row in rows} >= {("lambda1", "1"), ("lambda2", "0.1")}


def test_other_hyper_parameters_are_another_figure(tmp_path) -> None:
    values = {(0.1, 1.0): [50.0], (0.1, 10.0): [51.0]}
    made = [*sweep(values), *sweep(values, student=(), kmm=False)]
    files = figure6(made, tmp_path)
    assert len({file.stem for file in files}) == 2
    assert all(file.stem.startswith(STEM + "_") for file in files)


@pytest.mark.slow
def test_equal_records_make_equal_bytes(tmp_path) -> None:
    made = sweep(STAR)
    first, second = draw(made, tmp_path / "a"), draw(made[::-1], tmp_path / "b")
    assert {kind: file.read_bytes() for kind, file in first.items()} == {
        kind: file.read_bytes() for kind, file in second.items()
    }
    assert b"CreationDate" not in first["pdf"].read_bytes()


@pytest.mark.parametrize(
    "made",
    [
        [],
        [record(run()), record(run(setting("kd"), 0, source()))],
        sweep({(0.1, 1.0): [50.0]}),
        sweep({(0.1, 1.0): [50.0], (0.1, 0.0): [50.0]}),
        sweep({(0.1, 1.0): [50.0], (0.1, 10.0): [None]}),
        sweep({(0.1, 1.0): [50.0], (0.5, 10.0): [50.0]}),
    ],
    ids=["nothing", "other methods", "one value", "a control", "diverged", "both weights differ"],
)
def test_nothing_to_plot_is_one_line_that_says_what_is_needed(made, tmp_path) -> None:
    with pytest.raises(KdsegError, match="figure 6: needs .* lambda1 or lambda2") as error:
        figure6(made, tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_the_published_gain_is_data() -> None:
    claim = publication("heteroakd").claim("figure6_minimum_gain")
    assert (claim.value, claim.unit, claim.kind) == (0.48, "points", "reported")
    with pytest.raises(KdsegError, match="unknown claim"):
        publication("heteroakd").claim("figure7")
