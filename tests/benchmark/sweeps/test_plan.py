import json
from pathlib import Path

import pytest

from benchmark.core.errors import KdsegError
from benchmark.core.files import file_sha256
from benchmark.core.paths import ROOT
from benchmark.core.weights import find_weights
from benchmark.method.recipes import method_setting
from benchmark.spec.runs import Execution
from benchmark.sweeps.plan import Sweep, check_on_protocol, chosen, cohorts, load_sweep, plan_sweep, sweep_file

SWEEP = {
    "name": "test",
    "dataset": "drawn",
    "protocol": "demo",
    "seeds": (0, 1),
    "pairs": ({"teacher": "segformer_mit_b0", "student": "deeplabv3_mbv2"},),
    "methods": ("student", "kd", {"name": "heteroakd", "lambda2": [1.0, 10.0]}),
}


def plan(**changes):
    return plan_sweep(Sweep(**(SWEEP | changes)))


def jobs(made, size=64):
    return cohorts(made, Path("work"), None, Execution(), size)


def test_a_sweep_is_the_teacher_and_the_product_of_methods_and_seeds():
    runs = plan().manifest.runs
    assert [run.model for run in runs].count("segformer_mit_b0") == 1
    assert len(runs) == 1 + 2 * 4 and len({run.id for run in runs}) == len(runs)
    assert {run.method.hyper["lambda2"] for run in runs if run.method.name == "heteroakd"} == {1.0, 10.0}


def test_the_student_alone_is_planned_once_however_many_teachers_there_are():
    pairs = [{"teacher": t, "student": "deeplabv3_mbv2"} for t in ("segformer_mit_b0", "deeplabv3_r18")]
    runs = plan(pairs=pairs).manifest.runs
    alone = [run for run in runs if run.model == "deeplabv3_mbv2" and run.teacher is None]
    assert len(alone) == 2
    assert len([run for run in runs if run.method.name == "kd"]) == 4


def test_jobs_are_the_teacher_and_one_cohort_per_seed():
    found = jobs(plan())
    assert [len(job.runs) for job in found] == [1, 4, 4]
    assert found[0].runs[0].id == found[1].teacher.id == found[2].teacher.id
    assert {run.seed for run in found[1].runs} == {0}


def test_cohorts_can_be_cut_and_keep_every_run_once():
    found = jobs(plan(), size=1)
    assert all(len(job.runs) == 1 for job in found)
    assert sorted(run.id for job in found for run in job.runs) == sorted(run.id for run in plan().manifest.runs)


def test_included_parts_are_products_of_their_own_and_share_what_they_have_in_common():
    more = {"methods": ["cwd"], "seeds": [5]}, {"methods": ["kd"], "seeds": [0, 1]}
    base, runs = plan().manifest.runs, plan(include=more).manifest.runs
    assert runs[: len(base)] == base
    (added,) = runs[len(base) :]
    assert (added.method.name, added.seed) == ("cwd", 5)


def test_excluded_cells_are_not_planned():
    kept = plan(exclude=[{"method": ["kd", "student"], "seed": 1}]).manifest.runs
    assert {(run.method.name, run.seed) for run in kept} == {
        ("student", 0),
        ("kd", 0),
        ("heteroakd", 0),
        ("heteroakd", 1),
    }
    with pytest.raises(KdsegError, match=r"sweep test: exclude: {'method': 'cwd'} fits no cell; is a name in it"):
        plan(exclude=[{"method": "cwd"}])


def test_only_names_runs_and_takes_their_teachers_along():
    runs = plan().manifest.runs
    found = [run for run in runs if run.id in chosen(runs, "method=kd,method=student,seed=1,student=deeplabv3_mbv2")]
    assert [(run.model, run.method.name) for run in found] == [
        ("segformer_mit_b0", "student"),
        ("deeplabv3_mbv2", "student"),
        ("deeplabv3_mbv2", "kd"),
    ]
    assert chosen(runs, "") == {run.id for run in runs}


@pytest.mark.parametrize(
    ("only", "line"),
    [
        ("method=kdd", "--only: unknown method 'kdd'; did you mean kd"),
        ("metod=kd", "--only: unknown key 'metod'; did you mean method"),
        ("method", "--only: 'method' is not KEY=VALUE, such as method=cwd"),
        ("seed=1,teacher=segformer_mit_b0,method=student", "--only .*: no run of this sweep is all of that"),
    ],
)
def test_a_filter_that_chooses_nothing_is_refused(only, line):
    with pytest.raises(KdsegError, match=line):
        chosen(plan().manifest.runs, only)


def test_what_a_sweep_costs_can_be_planned_without_its_weights():
    sweep, missing = Sweep(**SWEEP, weights={"deeplabv3_mbv2": "nowhere.pth"}), []
    assert len(plan_sweep(sweep, None, missing).manifest.runs) == 9 and missing == ["nowhere.pth"]


def test_sweeps_are_named_by_file_or_by_name():
    assert sweep_file("tiny") == ROOT / "slurm" / "sweeps" / "tiny.yaml"
    assert sweep_file("mine.yaml") == Path("mine.yaml")
    with pytest.raises(KdsegError, match="unknown sweep 'tyny'; did you mean tiny"):
        sweep_file("tyny")


def test_a_setting_named_twice_is_planned_once():
    assert len(plan(methods=("kd", {"name": "kd", "tau": [1.0, 1]})).manifest.runs) == 1 + 2


def test_initial_weights_are_named_by_content(tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"abc")
    made = plan_sweep(Sweep(**SWEEP, weights={"deeplabv3_mbv2": "weights.pth"}), tmp_path)
    students = [run for run in made.manifest.runs if run.model == "deeplabv3_mbv2"]
    assert {run.weights for run in students} == {file_sha256(file)}
    assert made.files == {file_sha256(file): str(file)}


def test_a_missing_weight_file_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("KDSEG_WEIGHTS", "elsewhere")
    with pytest.raises(KdsegError, match=r"weights w\.pth: no such file \(looked at w\.pth, .*, elsewhere/w\.pth\)"):
        find_weights("w.pth", tmp_path)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"methods": ("kdd",)}, "unknown method 'kdd'; did you mean kd"),
        ({"methods": ({"name": "kd", "taau": 1},)}, "method kd: unknown key 'taau'; did you mean tau?"),
        ({"methods": ({"name": "kd", "tau": -1.0},)}, "method kd: tau: Input should be greater than 0, got -1.0"),
        ({"methods": ({"tau": 1.0},)}, "sweep test: methods: {'tau': 1.0} has no name; write `name: kd`"),
        ({"dataset": "drown"}, "unknown dataset 'drown'; did you mean drawn?"),
        ({"pairs": ({"teacher": "segformer_b0", "student": "deeplabv3_mbv2"},)}, "unknown model 'segformer_b0'"),
    ],
)
def test_impossible_sweeps_are_one_clear_line(changes, line):
    with pytest.raises(KdsegError) as error:
        plan(**changes)
    assert str(error.value).startswith(line)


def test_unknown_keys_of_a_sweep_file_are_errors(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text("name: a\ndataset: drawn\nprotocol: demo\npairs: []\nmethods: []\nseed: [0]\n")
    with pytest.raises(KdsegError, match=r"s\.yaml: unknown key 'seed'; did you mean seeds?"):
        load_sweep(file)


@pytest.mark.parametrize("file", sorted((ROOT / "slurm" / "sweeps").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_sweep_can_be_planned_and_is_named_like_its_file(file):
    sweep = load_sweep(file)
    assert sweep.name == file.stem
    assert len(file.read_text().splitlines()) <= 40
    assert jobs(plan_sweep(sweep.model_copy(update={"weights": {}})))


def test_another_effective_batch_needs_to_be_allowed():
    def run(**overrides):
        return plan(overrides={key.replace("_", "."): value for key, value in overrides.items()}).manifest.runs[-1]

    with pytest.raises(KdsegError, match="data.batch: protocol demo has 4; another effective .* --allow-off-protocol"):
        check_on_protocol(run(data_batch=2), allowed=False)
    check_on_protocol(run(data_batch=2), allowed=True)
    check_on_protocol(run(data_batch=4), allowed=False)
    check_on_protocol(run(optim_lr=0.1), allowed=False)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"seeds": []}, "s.yaml: seeds: Tuple should have at least 1 item"),
        ({"methods": []}, "s.yaml: methods: Tuple should have at least 1 item"),
        ({"name": "../x"}, "s.yaml: name: String should match pattern"),
        ({"methods": [{"name": "kd", "tau": []}]}, "sweep test: methods: kd: tau has no values; leave it out or give"),
        ({"overrides": {"data": {"batch": 2}}}, "--cfg-options: unknown override 'data'"),
    ],
)
def test_a_sweep_that_would_silently_do_less_is_refused(tmp_path, changes, line):
    file = tmp_path / "s.yaml"
    file.write_text(json.dumps(SWEEP | changes))
    with pytest.raises(KdsegError) as error:
        plan_sweep(load_sweep(file))
    assert str(error.value).startswith(line)


def test_settings_are_called_by_what_differs():
    assert method_setting("heteroakd", {}).variant == "HeteroAKD"
    assert method_setting("heteroakd", {"lambda2": 10.0}).variant == "HeteroAKD (lambda2=10.0)"
    assert "control" in method_setting("heteroakd", {"lambda1": 0.0, "lambda2": 0.0}).variant
