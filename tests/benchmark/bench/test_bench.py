"""That the benchmarks work, at sizes that say nothing about speed."""

import json

import pytest

from benchmark.bench import cohort, evaluation, formats, growth, step


@pytest.mark.slow
def test_a_step_is_measured_phase_by_phase(tmp_path, capsys):
    assert step.main(["--rounds", "1", "--crop", "64", "64", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "step.json").read_text())
    assert report["step_over_floor"] > 0 and report["loss_share"] > 0
    assert all(share > 0 for share in report["shares"].values())
    assert sum(report["shares"].values()) == pytest.approx(1)
    assert "iteration s" in capsys.readouterr().out


@pytest.mark.slow
def test_cohorts_are_measured_beside_single_runs(tmp_path):
    options = ["--rounds", "1", "--size", "64", "--memory-size", "64", "--out", str(tmp_path)]
    assert cohort.main(options) == 0
    report = json.loads((tmp_path / "cohort.json").read_text())
    nine, memory = report["cohorts"]["9"], report["memory"]
    assert 1 / 9 < nine["floor"] < 1 and nine["ratio"] > 0 and nine["singles_s"] > 0
    assert len(report["singles"]) == len(memory["singles"]) == 9
    assert memory["cohort"] > memory["largest_single"] > 0 and memory["states"] > 0


def test_areas_are_counted_beside_mmseg(tmp_path):
    assert evaluation.main(["--rounds", "1", "--size", "64", "64", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert set(report["classes"]) == {"19", "150"} and all(each["speedup"] > 0 for each in report["classes"].values())


@pytest.mark.slow
def test_growth_of_losses_is_measured_in_both_forms(tmp_path):
    assert growth.main(["--shrink", "8", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "growth.json").read_text())["rows"]
    assert len(rows) == 5 * 4 and all(row["ours_s"] > 0 and row["plain_mb"] >= 0 for row in rows)


@pytest.mark.slow
def test_formats_are_measured_beside_the_plain_one(tmp_path):
    assert formats.main(["--rounds", "1", "--size", "64", "--out", str(tmp_path)]) == 0
    pairs = json.loads((tmp_path / "formats.json").read_text())["pairs"]
    assert all(each["two_processes"] > 0 for each in pairs)
    for forms in (each["forms"] for each in pairs):
        assert forms["plain"]["student_over_plain"] == 1 and forms["plain"]["loss_difference"] == 0
        assert 0 < forms["bfloat16"]["loss_difference"] < 0.05 and forms["channels_last"]["loss_difference"] < 1e-4
