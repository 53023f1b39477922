import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.core.errors import KdsegError
from benchmark.spec import definitions
from benchmark.spec.networks import network
from benchmark.spec.runs import MethodSetting, Run, TeacherSource, cohort_key, make_run, run_recipe

STUDENT = MethodSetting(name="student", version=1, variant="Student", hyper={})
KD = MethodSetting(name="kd", version=1, variant="KD", hyper={"tau": 1.0})
TEACHER = TeacherSource(model="segformer_mit_b0", kind="run", id="0123456789abcdef")


def run(method=KD, **changes) -> Run:
    inputs = {"seed": 0, "teacher": TEACHER if method is KD else None} | changes
    return make_run(
        definitions.dataset("drawn"), definitions.protocol("demo"), network("deeplabv3_mbv2"), method, **inputs
    )


def recipe(of: Run):
    return run_recipe(of)


CHANGES = {
    "dataset_hash": "other",
    "protocol_hash": "other",
    "model": "deeplabv3_r18",
    "weights": "ab" * 32,
    "teacher": TeacherSource(model="segformer_mit_b0", kind="run", id="f" * 16),
    "overrides": {"optim.lr": 0.1},
    "method": KD.model_copy(update={"hyper": {"tau": 2.0}}),
    "precision": "amp",
    "seed": 1,
    "harness": 99,
    "dataset": "camvid",
    "protocol": "camvid-small",
}


@pytest.mark.parametrize("field", sorted(CHANGES))
def test_everything_that_decides_numbers_is_in_the_run_id(field):
    assert set(CHANGES) == set(Run.model_fields)
    assert run().model_copy(update={field: CHANGES[field]}).id != run().id


def test_a_raised_method_version_is_another_run():
    assert run(KD.model_copy(update={"version": 2}), teacher=TEACHER).id != run().id


def test_the_run_id_is_stable_and_blind_to_the_table_name():
    renamed = KD.model_copy(update={"variant": "Knowledge distillation"})
    assert run().id == run(renamed, teacher=TEACHER).id
    assert len(run().id) == 16 and int(run().id, 16) >= 0


def test_delta_is_taken_against_the_student_of_the_same_seed_only():
    assert run().delta_key == run(STUDENT).delta_key
    assert run().delta_key != run(STUDENT, seed=1).delta_key
    assert run().delta_key != run(STUDENT, overrides={"optim.lr": 0.1}).delta_key


def test_seeds_share_a_cell():
    assert run().keys.cell == run(seed=5).keys.cell != run(STUDENT).keys.cell


def test_a_student_without_teacher_fits_the_cohort_of_its_recipe_and_seed():
    with_teacher, alone = run(), run(STUDENT)
    assert cohort_key(with_teacher, recipe(with_teacher)) != cohort_key(alone, recipe(alone))
    assert cohort_key(with_teacher, recipe(with_teacher), with_teacher=False) == cohort_key(alone, recipe(alone))
    assert cohort_key(alone, recipe(alone)) != cohort_key(run(STUDENT, seed=1), recipe(alone))


def test_optimiser_overrides_keep_the_cohort_and_data_overrides_do_not():
    plain, tuned, shorter = run(), run(overrides={"optim.lr": 0.1}), run(overrides={"data.iterations": 70})
    assert cohort_key(plain, recipe(plain)) == cohort_key(tuned, recipe(tuned))
    assert cohort_key(plain, recipe(plain)) != cohort_key(shorter, recipe(shorter))


def test_overrides_change_the_recipe_and_nothing_else():
    found = recipe(run(overrides={"data.iterations": 70, "optim.lr": 0.5}))
    assert (found.data.iterations, found.optim.lr) == (70, 0.5)
    assert found.data.crop == recipe(run()).data.crop


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"optim.lrr": 1}, r"--cfg-options: unknown override 'optim.lrr'; did you mean optim.lr"),
        ({"lr": 1}, r"--cfg-options: unknown override 'lr'"),
        ({"optim.lr.x": 1}, r"--cfg-options: unknown override 'optim.lr.x'"),
        ({"data.batch": "8"}, r"--cfg-options: data.batch: Input should be a valid integer, got '8'"),
        ({"optim.warmup": 9999}, r"--cfg-options: optim.warmup 9999 is not below data.iterations \d+$"),
        ({"data.iterations": 0}, r"--cfg-options: data.iterations: Input should be greater than 0, got 0"),
    ],
)
def test_a_wrong_override_is_one_clear_line(overrides, line):
    with pytest.raises(KdsegError, match=line):
        run(overrides=overrides)


def test_a_protocol_that_is_not_for_the_dataset_is_refused():
    with pytest.raises(KdsegError, match="protocol camvid-small: not made for dataset drawn, only for camvid"):
        make_run(
            definitions.dataset("drawn"),
            definitions.protocol("camvid-small"),
            network("deeplabv3_mbv2"),
            STUDENT,
            seed=0,
        )


@given(st.dictionaries(st.text(min_size=1), st.one_of(st.none(), st.booleans(), st.integers(), st.text()), min_size=1))
def test_no_override_is_ever_silently_ignored(overrides):
    with pytest.raises(KdsegError):
        run(overrides=overrides)


def test_runs_survive_json():
    assert Run.model_validate_json(run().model_dump_json()) == run()
