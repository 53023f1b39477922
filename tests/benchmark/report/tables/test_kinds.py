"""Every other kind of table than the main ones, from small records."""

import numpy as np
import pytest

from benchmark.core.errors import KdsegError
from benchmark.records.areas import write_areas
from benchmark.report.tables import KINDS, make_tables
from benchmark.results.results import Results
from benchmark.spec.runs import Manifest, TeacherSource
from tests.benchmark.builders import TEACHER, heteroakd, pair_records, record, run, setting, teacher_run

CONTROL = heteroakd("HeteroAKD: control, projector supervision only", lambda1=0.0, lambda2=0.0)


def one(name: str, made, *manifests):
    (found,) = make_tables(Results.of(made, manifests), [name])
    return found


def texts(table, section: int = 0) -> dict[str, list[str]]:
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.sections[section].rows}


def test_tables_are_chosen_by_kind_or_name() -> None:
    results = Results.of(pair_records((setting("kd"), (50.5, 52.0, 54.5))))
    assert [table.name for table in make_tables(results, ["pooled", "main"])] == ["main-drawn-demo", "pooled"]
    assert [table.name for table in make_tables(results, ["paper-voc"])] == ["paper-voc"]
    names = [table.name for table in make_tables(results)]
    assert len(names) == len(set(names)) > len(KINDS) - 2
    with pytest.raises(KdsegError, match="unknown table 'pooledd'; did you mean pooled"):
        make_tables(results, ["pooledd"])


def test_ablation_is_paired_with_its_controls_and_shows_what_was_not_run() -> None:
    made = one("ablation", pair_records((heteroakd(), (52.0, 53.5, 54.0)), (CONTROL, (51.0, 53.0, 55.0))))
    rows = texts(made)
    # to the control: 1, 0.5, −1; mean 1/6, sample std √(13/12)
    assert rows["HeteroAKD"] == ["53.17 ± 1.04", "+2.17 ± 0.29", "+0.17 ± 1.04", "–", "3"]
    assert rows["HeteroAKD: control, projector supervision only"][2] == ""
    assert rows["HeteroAKD: without KMM"] == ["–"] * 4 + ["0"]
    (said,) = made.missing
    assert said.startswith("3 rows have no run. No sweep file has these pairs' ablation")


def test_pooled_flips_seeds_of_one_student_together_and_corrects_over_methods() -> None:
    other = TeacherSource(model="deeplabv3_r18", kind="checkpoint", id="c" * 64)
    made = pair_records((setting("kd"), (51.0, 52.0, 53.0)), (setting("cwd"), (49.0, 52.0, 53.0)))
    made += [record(run(setting("kd"), seed, other), 52.0 + seed) for seed in range(3)]
    made += [record(run(setting("cwd"), seed, other), 50.5 + seed) for seed in range(3)]
    rows = texts(one("pooled", made))
    # KD: Δ 1, 1, 1 and 2, 2, 2 over three student runs: p = 2^(1−3), not 2^(1−6)
    assert rows["KD"][:2] == ["2/2", "+1.50"]
    assert rows["KD"][3:] == ["0.250", "0.500", "6/6", "3"]
    # CWD: −1, 1, 1 and 0.5, 0.5, 0.5: sums −0.5, 1.5, 1.5; 2 of 4 patterns are as far as 2.5
    assert rows["CWD"][3:] == ["0.500", "0.500", "5/6", "3"]


def test_no_pooled_mean_runs_over_a_hole() -> None:
    made = one("pooled", pair_records((setting("kd"), (51.0, None, 53.0))))
    assert texts(made)["KD"][1:] == ["–"] * 6
    assert "seed 1: diverged" in made.sections[0].rows[0][2].notes[0]


def test_cost_counts_hours_of_all_devices() -> None:
    made = pair_records((setting("kd"), (51.0, 52.0, 53.0)))
    made[-1] = made[-1].model_copy(update={"cost": made[-1].cost.model_copy(update={"devices": 4})})
    # 200 iterations of 0.26 s on 1, 1 and 4 devices
    assert texts(one("cost", made))["KD"][3] == "0.029"
    assert one("cost", made).data[-1]["device_hours"] == pytest.approx(200 * 0.26 * 2 / 3600)


def test_equal_wall_clock_takes_the_last_validation_in_time() -> None:
    students = [record(run(seed=seed), 50.0, step_s=0.1, teacher_s=0.0) for seed in range(3)]
    slow = [record(run(setting("kd"), seed, TEACHER), 52.0, step_s=0.1, teacher_s=0.1) for seed in range(3)]
    rows = texts(one("wall-clock", [record(teacher_run()), *students, *slow]))
    # 200 iterations of 0.11 s: KD at 0.21 s reaches 104, and was validated at 100 (52.5)
    assert rows["KD"][:4] == ["100", "52.50 ± 0.00", "+2.50 ± 0.00", "+2.00 ± 0.00"]
    never = [record(run(setting("cwd"), seed, TEACHER), 52.0, step_s=0.5) for seed in range(3)]
    made = one("wall-clock", [record(teacher_run()), *students, *never])
    assert texts(made)["CWD"][1] == "–"
    assert "no validation within that time" in str(made.sections[0].rows)


def test_classes_are_those_of_the_dataset_and_absent_ones_have_no_number() -> None:
    made = one("classes", pair_records((setting("kd"), (51.0, 52.0, 54.0))))
    rows = texts(made)
    assert rows["sky"] == ["52.00 ± 1.00", "+1.33 ± 0.58"]
    assert rows["pole"] == ["–", "–"]
    assert list(rows) == ["sky", "road", "pole"]


def test_one_seed_has_an_interval_over_images_from_its_areas(tmp_path) -> None:
    made = pair_records((setting("kd"), (51.0,)), student=(50.0,))
    random = np.random.default_rng(0)
    for each in made[1:]:
        intersect = random.integers(1, 50, size=(8, 3))
        areas = np.stack([intersect, intersect + 20, intersect + 10, intersect + 10], axis=1)
        write_areas(tmp_path / f"{each.id}.npz", [f"image{place}" for place in range(8)], areas)
    results = Results.of(made, find_areas=lambda run_id: tmp_path / f"{run_id}.npz")
    (table,) = make_tables(results, ["main"])
    kd = table.data[-1]
    assert kd["image_blocks"] == 8
    assert kd["delta_images_low"] < kd["delta_images_high"]
    assert table.sections[0].columns[4] == "Δ, 95 % over images"
    assert " to " in texts(table)["KD"][3]


def test_damaged_areas_are_named_in_a_note(tmp_path) -> None:
    made = pair_records((setting("kd"), (51.0,)), student=(50.0,))
    for each in made:
        (tmp_path / f"{each.id}.npz").write_bytes(b"no archive")
    (table,) = make_tables(Results.of(made, find_areas=lambda run_id: tmp_path / f"{run_id}.npz"), ["main"])
    notes = [note for row in table.sections[0].rows for cell in row for note in cell.notes]
    assert any(".npz: cannot be read" in note for note in notes)


def test_areas_are_read_only_where_a_statistic_needs_them() -> None:
    def never(run_id):
        raise AssertionError(run_id)

    assert make_tables(Results.of(pair_records((setting("kd"), (50.5, 52.0, 54.5))), find_areas=never))


def test_a_teacher_below_its_student_is_said() -> None:
    made = [record(teacher_run(), 40.0), *pair_records((setting("kd"), (50.5, 52.0, 54.5)))[1:]]
    (table,) = make_tables(Results.of(made), ["main"])
    assert any("The teacher is below the student alone" in sentence for sentence in table.caption)


def test_a_table_ends_with_what_is_missing_and_the_line_that_makes_it() -> None:
    taught = [run(setting("kd"), seed, TEACHER) for seed in range(3)]
    manifest = Manifest(sweep="my-sweep", runs=(teacher_run(), *(run(seed=seed) for seed in range(3)), *taught))
    made = one("main", pair_records(), manifest)
    assert made.missing == (
        "3 runs are missing (3 not run).",
        "kdseg submit slurm/sweeps/my-sweep.yaml --profile PROFILE",
    )
