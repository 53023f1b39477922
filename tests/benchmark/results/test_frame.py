import math
import subprocess
import sys

import pytest

from benchmark.core.errors import KdsegError
from benchmark.core.paths import ROOT
from benchmark.results.frame import COLUMNS, records_frame, with_delta, with_missing
from benchmark.spec.runs import Manifest, Skipped, TeacherSource
from tests.benchmark.builders import (
    STUDENT_MODEL,
    TEACHER_MODEL,
    heteroakd,
    record,
    run,
    setting,
    source,
    teacher_run,
)


def row(frame, run_id):
    return frame.set_index("id").loc[run_id]


def test_a_row_holds_inputs_scores_and_cost() -> None:
    made = run(heteroakd(lambda2=10.0), seed=2, teacher=source())
    found = row(records_frame([record(made, 51.25, extra_parameters=99)]), made.id)
    assert (found.student, found.teacher) == ("DeepLabV3-MBV2", "SegFormer-MiT-B0")
    assert (found.student_family, found.teacher_family, found.heterogeneous) == ("cnn", "transformer", True)
    assert (found.method, found.variant, found.seed) == ("heteroakd", "HeteroAKD (lambda2=10.0)", 2)
    assert found.hyper["lambda2"] == 10.0
    assert (found.miou_last, found.miou_best, found.best_iteration) == (51.25, 51.75, 100)
    assert (found.macc, found.aacc) == (56.25, 71.25)
    assert found.iteration_s == pytest.approx(0.2 + 0.05 + 0.01)
    assert (found.extra_parameters, found.cohort, found.dirty) == (99, 4, False)
    assert (found.cell_key, found.delta_key) == (made.keys.cell, made.delta_key)


def test_column_types_do_not_depend_on_the_content() -> None:
    empty, full = records_frame([]), records_frame([record(run(teacher=source())), record(run(seed=1), None)])
    assert list(empty) == list(full) == list(COLUMNS)
    assert empty.dtypes.equals(full.dtypes)


def test_rows_do_not_depend_on_the_order_of_records() -> None:
    made = [record(run(seed=seed)) for seed in range(4)]
    assert records_frame(made).equals(records_frame(made[::-1]))


def test_a_run_that_is_there_twice_is_an_error() -> None:
    with pytest.raises(KdsegError, match="twice"):
        records_frame([record(run(), 50.0), record(run(), 51.0)])


def test_done_without_a_result_is_an_error() -> None:
    with pytest.raises(KdsegError, match="no result"):
        records_frame([record(run()).model_copy(update={"result": None})])


def test_a_diverged_run_has_no_score_and_a_reason() -> None:
    found = records_frame([record(run(), None)]).iloc[0]
    assert found.outcome == "diverged"
    assert math.isnan(found.miou_last)
    assert found.reason == "diverged at iteration 37 (loss is not finite)"


def test_another_batch_is_off_protocol_another_learning_rate_is_not() -> None:
    made = [run(overrides={"data.batch": 4}), run(overrides={"optim.lr": 0.1})]
    frame = records_frame([record(each) for each in made])
    assert [bool(row(frame, each.id).off_protocol) for each in made] == [True, False]


def test_delta_is_taken_against_the_student_of_the_same_seed() -> None:
    kd = [run(setting("kd"), seed, source()) for seed in (0, 1)]
    students = [run(seed=seed) for seed in (0, 1)]
    other = run(overrides={"optim.lr": 0.1})
    mious = [52.0, 50.0, 51.5, 50.5, 10.0]
    frame = with_delta(records_frame([record(*pair) for pair in zip([*kd, *students, other], mious, strict=True)]))
    assert [row(frame, each.id).delta for each in kd] == [pytest.approx(0.5), pytest.approx(-0.5)]
    assert math.isnan(row(frame, students[0].id).delta)
    assert row(frame, students[0].id).delta_reason == "it is the student alone"
    assert row(frame, kd[0].id).delta_reason is None


@pytest.mark.parametrize(
    ("student", "reason"),
    [
        ([], "student alone, seed 0: no record"),
        ([record(run(), None)], "student alone, seed 0: diverged at iteration 37 (loss is not finite)"),
    ],
)
def test_without_its_student_there_is_no_delta_but_a_reason(student, reason) -> None:
    kd = run(setting("kd"), teacher=source())
    found = row(with_delta(records_frame([record(kd), *student])), kd.id)
    assert math.isnan(found.delta)
    assert found.delta_reason == reason


def test_of_two_versions_of_the_student_the_newer_answers() -> None:
    kd, old = run(setting("kd"), teacher=source()), run()
    new = run(setting().model_copy(update={"version": 2}))
    for order in ([old, new], [new, old]):
        frame = records_frame([record(kd, 50.0), *(record(each, 49.0 if each is new else 40.0) for each in order)])
        assert row(with_delta(frame), kd.id).delta == 1.0


def test_missing_runs_and_skips_become_rows_with_reasons() -> None:
    teacher, students = teacher_run(), [run(seed=seed) for seed in (0, 1)]
    kd = run(setting("kd"), 0, source(teacher))
    skip = Skipped(
        dataset="drawn",
        protocol="demo",
        student=STUDENT_MODEL,
        teacher=TEACHER_MODEL,
        method="kd",
        variant="AT",
        reason="no common grid",
    )
    manifest = Manifest(sweep="s", runs=(teacher, *students, kd), skips=(skip,))
    frame = records_frame([record(teacher), record(students[0])])
    found = with_missing(frame, [manifest, manifest], lambda run_id: f"waits\n{run_id}")
    assert len(found) == 5
    assert row(found, kd.id).outcome == "missing"
    assert row(found, kd.id).reason == f"waits {kd.id}"
    skipped = found[found.outcome == "skipped"].iloc[0]
    assert skipped.reason == "skipped: no common grid"
    assert (skipped.teacher_id, skipped.setting_key) == (teacher.id, row(found, students[0].id).setting_key)
    assert with_missing(frame, [manifest]).set_index("id").loc[kd.id].reason == "not run"
    assert found.dtypes.equals(frame.dtypes)


def test_a_model_nobody_knows_is_named() -> None:
    with pytest.raises(KdsegError, match="unknown model 'deeplabv3_mbv3'"):
        records_frame([record(run(model="deeplabv3_mbv3"))])


def test_a_checkpoint_is_a_teacher_too() -> None:
    made = run(setting("kd"), teacher=TeacherSource(model="deeplabv3_r18", kind="checkpoint", id="c" * 64))
    found = records_frame([record(made)]).iloc[0]
    assert (found.teacher_kind, found.heterogeneous) == ("checkpoint", False)


def test_readers_of_records_import_no_torch(tmp_path) -> None:
    script = """
import sys
from benchmark.report import figures, tables, writers
from benchmark.results import entries, frame, published, results, stats
late = sorted({name.split(".")[0] for name in sys.modules} & {"pandas", "matplotlib", "scipy", "rich"})
assert not late, late
from pathlib import Path
from tests.benchmark.builders import heteroakd, record, run, source
values = [heteroakd(), heteroakd(lambda2=10.0)]
made = [record(run()), *(record(run(value, 0, source())) for value in values)]
found, folder = results.Results.of(made), Path(sys.argv[1])
writers.write_tables(tables.make_tables(found), folder)
figures.write(figures.make_figures(figures.Sources(found, folder), ["6"]).figures, folder)
heavy = sorted(n for n in {name.split(".")[0] for name in sys.modules} if n == "torch" or n.startswith("mm"))
assert heavy in ([], ["mmap"]), heavy
"""
    root, command = ROOT, [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.iterdir())) > 6
