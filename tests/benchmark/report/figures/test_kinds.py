"""Class, cost and curve figures, and what `kdseg figures` says of those it cannot make."""

import csv
import math

import pytest

from benchmark.cli.__main__ import main
from benchmark.core.errors import KdsegError
from benchmark.core.schema import canonical
from benchmark.report.figures import KINDS, Sources, make_figures, render, write
from benchmark.report.figures.cost import best
from benchmark.results.results import Results
from tests.benchmark.builders import pair_records, setting


def sources(made, folder) -> Sources:
    return Sources(Results.of(made), folder)


def with_scores(record, **changes):
    """A record with another IoU per class, or another curve."""
    curve = changes.pop("curve", record.result.curve)
    last = record.result.last.model_copy(update={"iou": changes or record.result.last.iou})
    return record.model_copy(update={"result": record.result.model_copy(update={"last": last, "curve": curve})})


def made(kind, records, folder):
    (figure,) = KINDS[kind](sources(records, folder))
    return figure


def test_class_deltas_are_means_of_paired_differences_and_a_hole_stays_one(tmp_path):
    records = pair_records((setting("kd"), [51.0, 53.0]), (setting("cwd"), [51.0, None]), student=(50.0, 51.0))
    ious = {0: (40.0, 42.0), 1: (41.0, 47.0)}
    changed = []
    for record in records:
        place, seed = int(record.inputs.method.name == "kd"), record.inputs.seed
        value = {"sky": ious[seed][place], "road": 50.0, "pole": None}
        changed.append(with_scores(record, **value) if record.result else record)
    figure = made("classes", changed, tmp_path)
    rows = {(row["method"], row["class"]): row for row in figure.data}
    assert {method for method, _ in rows} == {"KD"}, "CWD lacks a seed: no mean runs over a hole"
    assert (rows["KD", "sky"]["delta"], rows["KD", "sky"]["n"]) == (4.0, 2)
    assert rows["KD", "road"]["delta"] == 0.0
    assert math.isnan(rows["KD", "pole"]["delta"])
    assert "No conclusion can be drawn from fewer than 3 seeds" in figure.caption


def test_cost_is_relative_to_the_student_and_the_unbeaten_are_marked(tmp_path):
    settings = [(setting("kd"), [51.0]), (setting("cwd"), [53.0]), (setting("at"), [49.0])]
    records = pair_records(*settings, student=(50.0,))
    seconds = {"student": 0.1, "kd": 0.2, "cwd": 0.4, "at": 0.3}
    slow = [
        r.model_copy(
            update={
                "cost": r.cost.model_copy(
                    update={"step_s": seconds[r.inputs.method.name], "teacher_s": 0.0, "data_s": 0.0}
                )
            }
        )
        for r in records
    ]
    rows = {row["method"]: row for row in made("cost", slow, tmp_path).data}
    assert [(rows[name]["cost"], rows[name]["delta"]) for name in ("KD", "CWD", "AT")] == [
        (pytest.approx(2), 1.0),
        (pytest.approx(4), 3.0),
        (pytest.approx(3), -1.0),
    ]
    assert [rows[name]["unbeaten"] for name in ("KD", "CWD", "AT")] == [True, True, False]


def test_what_is_as_cheap_and_as_good_as_another_is_not_beaten_by_it():
    assert best([(1.0, 2.0), (1.0, 2.0), (1.0, 1.0), (0.5, 2.0)]) == [False, False, False, True]
    assert best([(1.0, 2.0), (1.0, 2.0)]) == [True, True]


def test_curves_hold_every_validation_and_need_two(tmp_path):
    records = pair_records((setting("kd"), [51.0, 52.0]), student=(50.0, 51.0))
    figure = made("curves", records, tmp_path)
    assert [(row["seed"], row["iteration"], row["miou"]) for row in figure.data if row["method"] == "KD"] == [
        (0, 100, 51.5),
        (0, 200, 51.0),
        (1, 100, 52.5),
        (1, 200, 52.0),
    ]
    once = [with_scores(record, curve=((200, 50.0),)) for record in records]
    with pytest.raises(KdsegError, match="two validations or more"):
        KINDS["curves"](sources(once, tmp_path))


@pytest.mark.slow
def test_every_figure_is_written_whole_and_equal_results_make_equal_bytes(tmp_path):
    records = pair_records((setting("kd"), [51.0, 52.0]), (setting("cwd"), [52.0, 52.5]), student=(50.0, 51.0))
    found = make_figures(sources(records, tmp_path))
    assert sorted(found.reasons) == ["6", "cka", "panels"]
    files = write(found.figures, tmp_path / "a")
    assert {file.suffix for file in files} == {".pdf", ".png", ".csv", ".txt"}
    again = make_figures(sources(records[::-1], tmp_path)).figures
    for figure, other in zip(found.figures, again, strict=True):
        assert canonical(figure.caption) == canonical(other.caption)
        assert render(figure, "svg") == render(other, "svg")
        rows = list(csv.DictReader((tmp_path / "a" / f"{figure.name}.csv").read_text().splitlines()))
        assert len(rows) == len(figure.data)


@pytest.mark.slow
def test_the_command_names_what_it_could_not_make(tmp_path, capsys):
    for record in pair_records((setting("kd"), [51.0]), (setting("cwd"), [52.0]), student=(50.0,)):
        folder = tmp_path / "runs" / record.id
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(record.model_dump_json())
    assert main(["figures", "--work-dir", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "not made: cka: needs `kdseg analyze cka" in said.err and "not made: figure 6: needs" in said.err
    assert "cost_drawn_demo" in said.out
    assert main(["figures", "--work-dir", str(tmp_path), "--fig", "cka"]) == 2
    assert main(["figures", "--work-dir", str(tmp_path), "--fig", "clases"]) == 2
    assert "did you mean classes" in capsys.readouterr().err
