import pytest

from benchmark.report.tables import Table, main_tables
from benchmark.report.tables.base import number
from benchmark.results.entries import natural, variant_order
from benchmark.results.results import Results
from benchmark.spec.runs import Manifest, Skipped, TeacherSource
from tests.benchmark.builders import (
    STUDENT_MODEL,
    TEACHER,
    TEACHER_MODEL,
    heteroakd,
    pair_records,
    record,
    run,
    setting,
    teacher_run,
)


def table(made, *manifests, reason=None) -> Table:
    (only,) = main_tables(Results.of(made, manifests, reason))
    return only


def texts(made: Table, section: int = 0) -> dict[str, list[str]]:
    return {row[0].text: [cell.text for cell in row[1:]] for row in made.sections[section].rows}


def notes(made: Table) -> list[str]:
    return [note for section in made.sections for row in section.rows for cell in row for note in cell.notes]


def bold(made: Table) -> list[str]:
    return [row[0].text for section in made.sections for row in section.rows if row[1].bold]


def plan(*settings, seeds=(0, 1, 2), skips=()) -> Manifest:
    taught = [run(method, seed, TEACHER) for method in settings for seed in seeds]
    return Manifest(sweep="s", runs=(teacher_run(), *(run(seed=seed) for seed in seeds), *taught), skips=skips)


def test_values_of_a_complete_pair() -> None:
    made = table(pair_records((setting("kd"), (50.5, 52.0, 54.5))))
    assert [section.title for section in made.sections] == ["SegFormer-MiT-B0 → DeepLabV3-MBV2"]
    assert texts(made) == {
        "Teacher (seed 0)": ["70.00", "70.00", "", "1", "", "0.260"],
        "Student alone": ["51.00 ± 1.00", "50.00, 51.00, 52.00", "", "3", "0", "0.260"],
        # Δ: 0.5, 1, 2.5; mean 4/3, sample std √(13/12)
        "KD": ["52.33 ± 2.02", "50.50, 52.00, 54.50", "+1.33 ± 1.04", "3", "0", "0.260"],
    }
    assert not notes(made)
    assert bold(made) == ["KD"]


def test_rows_come_in_a_stable_order() -> None:
    settings = [
        heteroakd("HeteroAKD: without KMM", kmm=False),
        heteroakd(lambda2=10.0),
        heteroakd(lambda2=5.0),
        heteroakd(),
        setting("zzz"),
        setting("skd"),
        setting("kd", "KD (tau=2.0)", tau=2.0),
        setting("cwd"),
        setting("kd"),
        setting("cwd@cirkd"),
    ]
    made = pair_records(*((each, (50.0,)) for each in settings))
    order = ["KD", "KD (tau=2.0)", "CWD", "CWD@CIRKD", "SKD", "ZZZ", "HeteroAKD", "HeteroAKD (lambda2=5.0)"]
    order += ["HeteroAKD (lambda2=10.0)", "HeteroAKD: without KMM"]
    assert list(texts(table(made)))[2:] == order
    assert list(texts(table(made[::-1])))[2:] == order


def test_one_seed_is_a_value_and_allows_no_conclusion() -> None:
    made = table(pair_records((setting("kd"), (50.5,)), student=(50.0,)))
    assert texts(made)["KD"][:4] == ["50.50", "50.50", "+0.50", "1"]
    assert any("No conclusion" in sentence and "no row has as many" in sentence for sentence in made.caption)


def test_three_seeds_need_no_such_warning() -> None:
    made = table(pair_records((setting("kd"), (50.5, 52.0, 54.5))))
    assert not any("No conclusion" in sentence for sentence in made.caption)


@pytest.mark.parametrize("missing", ["absent", None])
def test_no_mean_runs_over_a_hole(missing) -> None:
    made = table(pair_records((setting("kd"), (50.5, missing, 54.5))))
    assert texts(made)["KD"][:4] == ["–", "50.50, –, 54.50", "–", "2/3"]
    why = "no record" if missing == "absent" else "diverged at iteration 37 (loss is not finite)"
    assert notes(made) == [f"seed 1: {why}"]
    assert bold(made) == []


def test_a_hole_in_the_student_alone_leaves_no_delta() -> None:
    made = table(pair_records((setting("kd"), (50.5, 51.0, 54.5)), student=(50.0, None, 52.0)))
    assert texts(made)["KD"][:4] == ["52.00 ± 2.18", "50.50, 51.00, 54.50", "–", "3"]
    assert "no Δ: student alone, seed 1: diverged at iteration 37 (loss is not finite)" in notes(made)


def test_what_a_sweep_expects_has_a_row_and_a_reason() -> None:
    skip = Skipped(
        dataset="drawn",
        protocol="demo",
        student=STUDENT_MODEL,
        teacher=TEACHER_MODEL,
        method="kd",
        variant="AT",
        reason="no common grid",
    )
    manifest = plan(setting("kd"), setting("cwd"), skips=(skip,))
    made = table(
        pair_records((setting("kd"), (50.5, 51.0))), manifest, reason=lambda _: "running at iteration 5 of 200"
    )
    assert texts(made)["KD"][3] == "2/3"
    assert texts(made)["CWD"] == ["–", "–, –, –", "–", "0/3", "–", "–"]
    assert texts(made)["AT"] == ["–", "–", "–", "0", "–", "–"]
    assert "seed 2: running at iteration 5 of 200" in notes(made)
    assert "skipped: no common grid" in notes(made)


def test_before_anything_has_run_a_sweep_is_all_dashes() -> None:
    made = table([], plan(setting("kd")))
    assert {row[0] for row in texts(made).values()} == {"–"}
    assert "seed 0: not run; seed 1: not run; seed 2: not run" in notes(made)


def test_fewer_seeds_by_plan_are_no_hole_but_never_bold() -> None:
    manifests = [plan(), plan(setting("kd"), seeds=(0,))]
    made = table(pair_records((setting("kd"), (60.0,))), *manifests)
    assert texts(made)["KD"][:4] == ["60.00", "60.00", "+10.00", "1"]
    assert notes(made) == ["planned for seed 0 only; never bold"]
    assert bold(made) == []


def test_what_reads_as_equal_is_a_tie() -> None:
    made = table(pair_records((setting("kd"), (51.0, 51.0, 51.002)), (setting("cwd"), (50.0, 50.0, 50.0))))
    assert bold(made) == ["Student alone", "KD"]


def test_dirty_and_unknown_code_is_marked() -> None:
    made = pair_records((setting("kd"), (51.0, 51.0, 51.0)))
    made += [record(run(setting("cwd"), seed, TEACHER), 51.0, dirty=True) for seed in range(3)]
    made += [record(run(setting("skd"), seed, TEACHER), 51.0, commit="unknown", dirty=True) for seed in range(3)]
    found = table(made)
    marked = {row[0].text: row[0].notes for row in found.sections[0].rows if row[0].notes}
    assert marked == {
        "CWD": ("code with uncommitted changes (on aaaaaaaaaa)",),
        "SKD": ("code of unknown version",),
    }
    assert "Code: aaaaaaaaaa, aaaaaaaaaa+, unknown (+: with uncommitted changes)." in found.caption


def test_carried_over_weights_are_marked_and_change_no_run() -> None:
    noted = setting("cwd@cirkd", "CWD @cirkd").model_copy(update={"note": "weights carried over from cityscapes"})
    found = table(pair_records((noted, (50.5, 52.0, 54.5))))
    assert notes(found) == ["weights carried over from cityscapes"]
    assert found.sections[0].rows[2][0].text == "CWD @cirkd" and found.sections[0].rows[2][0].notes
    assert run(noted).id == run(noted.model_copy(update={"note": ""})).id


def test_other_overrides_are_another_section_and_off_protocol_is_said() -> None:
    made = table([*pair_records(), *(record(run(seed=s, overrides={"data.batch": 4}), 40.0) for s in range(3))])
    pairs = [(section.title, section.setting) for section in made.sections]
    assert pairs[0] == ("DeepLabV3-MBV2, no teacher", "seeds 0, 1, 2 · fp32 · random initial weights")
    assert (made.sections[1].title, pairs[1][1].endswith("with data.batch=4 · off protocol")) == (pairs[0][0], True)
    assert any(sentence.startswith("Off protocol") for sentence in made.caption)


def test_sections_that_look_the_same_say_what_differs() -> None:
    changed = [record(run(seed=s, protocol_hash="q" * 16), 40.0) for s in range(3)]
    made = table([*pair_records(), *changed])
    found = [section.setting for section in made.sections if section.title.startswith("DeepLabV3-MBV2")]
    assert sorted(text.split("protocol ")[1][:8] for text in found) == ["pppppppp", "qqqqqqqq"]


def test_two_versions_of_a_method_are_two_rows() -> None:
    newer = setting("kd").model_copy(update={"version": 2})
    made = table(pair_records((setting("kd"), (50.0,)), (newer, (51.0,)), student=(50.0,)))
    assert sum(label.startswith("KD [version") for label in texts(made)) == 2


def test_a_checkpoint_teacher_has_no_number() -> None:
    teacher = TeacherSource(model="deeplabv3_r18", kind="checkpoint", id="c" * 64)
    made = table([record(run(), 50.0), record(run(setting("kd"), 0, teacher), 51.0)])
    assert texts(made)["Teacher"][0] == "–"
    assert notes(made) == [f"teacher {'c' * 64}: a checkpoint, not evaluated here"]


def test_datasets_and_protocols_are_tables_of_their_own() -> None:
    made = main_tables(Results.of([record(run()), record(run(dataset="camvid", protocol="camvid-small"))]))
    assert [table.name for table in made] == ["main-camvid-camvid-small", "main-drawn-demo"]


def test_captions_name_every_spread() -> None:
    text = " ".join(table(pair_records((setting("kd"), (50.5, 52.0, 54.5)))).caption)
    for part in (
        "last iteration",
        "mmseg's convention",
        "sample standard deviation",
        "paired",
        "one teacher",
        "single run",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.004, True, "0.00"),
        (-0.004, True, "0.00"),
        (-1.5, True, "−1.50"),
        (1.5, True, "+1.50"),
        (50.0, False, "50.00"),
    ],
)
def test_numbers_have_signs_but_zero_has_none(value, signed, text) -> None:
    assert number(value, signed) == text


def test_natural_order() -> None:
    assert sorted(["b=10", "b=9.5", "b=1e-2", "a"], key=natural) == ["a", "b=1e-2", "b=9.5", "b=10"]
    assert variant_order("student", "Student") < variant_order("kd", "KD") < variant_order("heteroakd", "HeteroAKD")
