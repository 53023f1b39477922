"""Verdicts on runs that stand beside published numbers, from the records up."""

import pytest

from benchmark.records.record import Record
from benchmark.report.tables import make_tables
from benchmark.results.published import Number, numbers, publication, read_publication
from benchmark.results.reproduction import compare, has_counterpart
from benchmark.results.results import Results
from benchmark.results.verdicts import Verdict
from benchmark.spec.runs import TeacherSource
from tests.benchmark.builders import record, run, setting

TEACHER = TeacherSource(model="deeplabv3_r101@cirkd", kind="checkpoint", id="c" * 64)
FACTS = {"dataset": "cityscapes", "protocol": "cirkd", "model": "deeplabv3_r18@cirkd", "weights": "w" * 64}
CWD = setting("cwd@cirkd", "CWD @cirkd")


def cell(row: str, table: str = "cityscapes", paper: str = "cirkd", column: str = "DeepLabV3-R18") -> Number:
    found = numbers(publication(paper))
    return next(n for n in found if (n.table.name, n.row.name, n.column.name) == (table, row, column))


def results(cwd, student=(73.5, 73.7, 73.9), **facts) -> Results:
    """Best validations are half a point above the last iteration (`builders.record`)."""
    facts = FACTS | facts
    made = [record(run(seed=seed, **facts), miou) for seed, miou in enumerate(student)]
    made += [record(run(CWD, seed, TEACHER, **facts), miou) for seed, miou in enumerate(cwd) if miou != "absent"]
    return Results.of(list(map(official, made)))


def official(made: Record) -> Record:
    """A record of all of Cityscapes' images."""
    counted = made.provenance.model_copy(update={"images": {"train": 2975, "val": 500}})
    return made.model_copy(update={"provenance": counted})


def verdict(made: Results, row: str = "CWD", **where):
    (found,) = compare(made, cell(row, **where))
    return found


def test_ours_are_the_checkpoints_that_the_published_number_is_of() -> None:
    # published 75.55 (+1.34), best on val; ours best 75.5, 75.6, 75.7
    found = verdict(results((75.0, 75.1, 75.2)))
    assert found.ours.mean == pytest.approx(75.6)
    assert (found.absolute.verdict, found.absolute.assumed) == (Verdict.REPRODUCED, ())
    assert found.our_delta.values == pytest.approx((1.5, 1.4, 1.3))
    assert (found.delta.verdict, found.delta.difference) == (Verdict.REPRODUCED, pytest.approx(1.4 - 1.34))


def test_delta_can_hold_while_the_absolute_value_differs() -> None:
    found = verdict(results((78.0, 78.1, 78.2), student=(76.6, 76.8, 77.0)))
    assert found.absolute.verdict is Verdict.NOT_REPRODUCED
    assert found.delta.verdict is Verdict.REPRODUCED


def test_before_anything_has_run_nothing_is_said() -> None:
    assert verdict(Results.of([])).absolute.verdict is Verdict.NOT_RUN
    unknown = verdict(Results.of([]), "SKD", column="PSPNet-R18")
    assert (unknown.absolute.verdict, unknown.absolute.reason) == (
        Verdict.NONE,
        "the published number is unknown to us",
    )


def test_few_seeds_and_holes_allow_no_verdict() -> None:
    assert verdict(results((75.0,), student=(73.5,))).absolute.verdict is Verdict.TOO_FEW
    holed = verdict(results((75.0, None, 75.2)))
    assert (holed.absolute.verdict, holed.delta.verdict, holed.ours) == (Verdict.NONE, Verdict.NONE, None)
    assert holed.absolute.reason == "seed 1: diverged at iteration 37 (loss is not finite)"
    student = verdict(results((75.0, 75.1, 75.2), student=(73.5, None, 73.9)))
    assert (student.absolute.verdict, student.delta.verdict) == (Verdict.REPRODUCED, Verdict.NONE)


def test_a_student_at_zero_is_a_number_and_no_hole() -> None:
    facts = FACTS | {"protocol": "mmseg", "model": "pspnet_r18"}
    teacher = TeacherSource(model="pspnet_r101", kind="checkpoint", id="c" * 64)
    cwd = setting("cwd@mmrazor", "CWD @mmrazor")
    records = [record(run(**facts), 0.0), record(run(cwd, teacher=teacher, **facts), 75.0)]
    # published of the last iteration
    found = verdict(Results.of(list(map(official, records))), paper="mmrazor", column="PSPNet-R18")
    assert found.our_delta.values == (75.0,)
    assert found.delta.verdict is Verdict.TOO_FEW


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"protocol": "cirkd-v2"}, "published under protocol cirkd, ours is cirkd-v2"),
        ({"weights": None}, "published with ImageNet weights, ours from scratch"),
        ({"overrides": {"optim.lr": 0.1}}, "ours with optim.lr=0.1"),
    ],
)
def test_a_known_mismatch_is_not_comparable(facts, reason) -> None:
    found = verdict(results((75.0, 75.1, 75.2), **facts))
    assert {found.absolute.verdict, found.delta.verdict} == {Verdict.NOT_COMPARABLE}
    assert found.absolute.reason == reason
    assert found.ours is not None


def test_test_images_and_selection_on_them_are_never_comparable() -> None:
    made = results((75.0, 75.1, 75.2))
    assert verdict(made, "CIRKD", table="cityscapes-test").absolute.reason == "published on the test images"
    v1 = verdict(made, "KD", paper="threads", table="cirkd-5")
    assert v1.absolute.reason.startswith("published under another protocol")


def test_what_is_inferred_or_unknown_is_assumed_and_said() -> None:
    facts = FACTS | {"model": "deeplabv3_mbv2@cirkd"}
    teacher = TeacherSource(model="deeplabv3_mit_b4@cirkd", kind="checkpoint", id="c" * 64)
    noted = CWD.model_copy(update={"note": "cwd@cirkd: weights of CNN → CNN pairs"})
    records = [record(run(noted, seed, teacher, **facts), 71.0 + seed / 10) for seed in range(3)]
    made = Results.of(list(map(official, records)))
    pair = "DeepLabV3-MiT-B4 → DeepLabV3-MBV2"
    found = verdict(made, paper="heteroakd", column=pair)
    expected = "reproduced, assumed: protocol cirkd; best validation; cwd@cirkd: weights of CNN → CNN pairs"
    assert found.absolute.text == expected


def test_a_value_that_somebody_fills_in_is_followed_by_table_and_verdict(tmp_path, monkeypatch) -> None:
    import benchmark.results.published as published

    made = results((75.0, 75.1, 75.2))
    for file in published.PUBLISHED.glob("*.yaml"):
        (tmp_path / file.name).write_text(file.read_text())
    monkeypatch.setattr(published, "PUBLISHED", tmp_path)
    published.publication.cache_clear()
    before = make_tables(made, ["reproduction"])[0]
    file = tmp_path / "cirkd.yaml"
    file.write_text(
        file.read_text().replace(
            "CWD @cirkd], values: {DeepLabV3-R18: 75.55", "CWD @cirkd], values: {DeepLabV3-R18: 60.0"
        )
    )
    assert read_publication(file).tables[0].rows[4].values["DeepLabV3-R18"] == 60.0
    published.publication.cache_clear()
    after = make_tables(made, ["reproduction"])[0]
    published.publication.cache_clear()
    rows = [
        next(row for row in table.data if (row["source"], row["table"], row["row"]) == ("cirkd", "cityscapes", "CWD"))
        for table in (before, after)
    ]
    assert [row["verdict"] for row in rows] == ["reproduced", "not reproduced"]


def test_what_the_suite_does_not_have_has_no_counterpart() -> None:
    assert not has_counterpart(cell("Student", paper="bpkd", column="HRNet-W18s"))
    assert not has_counterpart(cell("SKD", paper="bpkd", column="PSPNet-R18"))
    assert has_counterpart(cell("Student", paper="bpkd", column="PSPNet-R18"))
