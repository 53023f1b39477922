import json

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmseg.models import SegDataPreProcessor

from benchmark.core.errors import KdsegError
from benchmark.data.datasets import EndlessSampler, SeededDataset, train_dataset
from benchmark.models import checkpoints
from benchmark.models.build import build_network
from benchmark.records.areas import read_areas
from benchmark.records.record import State
from benchmark.runtime.randomness import stream
from benchmark.spec import definitions
from benchmark.spec.runs import TeacherSource, run_recipe
from benchmark.training import distiller as distiller_module
from benchmark.training import trainer
from benchmark.training.cohort import Interrupted
from benchmark.training.member import Member


def cohort(world, teacher):
    """Three runs: a plain one, one with all kinds of state, and one of another architecture and optimiser."""
    return [
        world.run("student"),
        world.run("noisy", teacher=teacher),
        world.run("kd", model="segformer_tiny", teacher=teacher),
    ]


def test_a_cohort_of_one_and_of_three_are_bit_equal_in_any_order(world, teacher):
    runs = cohort(world, teacher)
    world.train(runs, "a")
    for run in runs:
        world.train([run], "b")
    world.train([*runs[::-1], world.run("heteroakd", teacher=teacher)], "c")
    for run in runs:
        assert world.equal(run, "a", "b") and world.equal(run, "a", "c")
    assert world.record(runs[0], "a").cost.cohort == 3 and world.record(runs[0], "b").cost.cohort == 1


def test_without_streams_company_would_change_the_result(world, teacher, monkeypatch):
    """The negative control of the test above: it can fail."""
    from contextlib import nullcontext

    run = world.run("noisy", teacher=teacher)
    monkeypatch.setattr(distiller_module, "stream", lambda *key: nullcontext())
    world.train([run], "a")
    world.train([world.run("noisy", teacher=teacher, optim_lr=0.01), run], "b")
    assert not world.equal(run, "a", "b")


@pytest.mark.parametrize("cut", [1, 3])
def test_stopped_and_resumed_is_bit_equal_to_undisturbed(world, teacher, cut):
    runs = cohort(world, teacher)
    world.train(runs, "a")
    count = iter(range(1, 100))
    with pytest.raises(Interrupted):
        world.train(runs, "b", stop=lambda: next(count) == cut)
    assert world.directory(runs[0], "b").status().state is State.INTERRUPTED
    world.train(runs, "b", workers=2)
    for run in runs:
        assert world.equal(run, "a", "b")
        assert world.record(run, "b").provenance.resumed_at == (cut,)
        assert not world.directory(run, "b").resume_files()
        scalars = [(world.directory(run, place).path / "scalars.jsonl").read_text() for place in ("a", "b")]
        assert scalars[0] == scalars[1]


def test_runs_can_be_regrouped_when_they_resume(world, teacher):
    runs = cohort(world, teacher)
    world.train(runs, "a")
    count = iter(range(1, 100))
    with pytest.raises(Interrupted):
        world.train(runs[:2], "b", stop=lambda: next(count) == 2)
    world.train(runs, "b")
    assert all(world.equal(run, "a", "b") for run in runs)


def test_two_generations_of_resume_files_are_kept(world, teacher):
    run = world.run("noisy", teacher=teacher)
    count = iter(range(1, 100))
    with pytest.raises(Interrupted):
        world.train([run], "a", stop=lambda: next(count) == 3, checkpoint_interval=1)
    assert list(world.directory(run, "a").resume_files()) == [2, 3]


def test_methods_on_one_architecture_start_from_the_same_student(world, teacher, monkeypatch):
    hashes = {}
    build = Member.__init__

    def spy(self, run, *args):
        build(self, run, *args)
        hashes[run.method.name] = checkpoints.weights_hash(self.student)

    monkeypatch.setattr(Member, "__init__", spy)
    world.train([world.run("student"), world.run("kd", teacher=teacher), world.run("noisy", teacher=teacher)], "a")
    assert len(set(hashes.values())) == 1 and len(hashes) == 3


def test_validation_changes_nothing(world, monkeypatch):
    run = world.run("student")
    world.train([run], "a")
    load = definitions.protocol
    often = load("demo").model_copy(update={"val_interval": 1})
    monkeypatch.setattr(definitions, "protocol", lambda name: often)
    monkeypatch.setattr("benchmark.training.cohort.check_current", lambda run: None)
    world.train([run], "b")
    ours, theirs = world.record(run, "a"), world.record(run, "b")
    assert len(theirs.result.curve) == 4 and len(ours.result.curve) == 1
    assert ours.student_sha256 == theirs.student_sha256 and ours.result.last == theirs.result.last
    best = max(theirs.result.curve, key=lambda point: point[1])
    assert (theirs.result.best.iteration, theirs.result.best.miou) == best


@pytest.mark.parametrize(
    ("kind", "reason"), [("loss", "loss is not finite: poison"), ("gradient", "gradient is not finite")]
)
def test_a_diverging_run_leaves_and_the_others_do_not_notice(world, teacher, kind, reason):
    good = world.run("kd", teacher=teacher)
    bad = world.run("poison", teacher=teacher, hyper={"kind": kind, "at": 2})
    world.train([good], "a")
    assert world.train([bad, good], "b") == []
    assert world.equal(good, "a", "b")
    record = world.record(bad, "b")
    assert record.outcome is State.DIVERGED and record.result is None and record.areas_sha256 is None
    assert (record.divergence.iteration, record.divergence.reason, record.iterations) == (3, reason, 3)
    assert not (world.directory(bad, "b").path / "areas.npz").exists()


def test_a_run_that_raises_leaves_and_the_job_says_so(world, teacher):
    good, bad = world.run("kd", teacher=teacher), world.run("poison", teacher=teacher, hyper={"kind": "raise"})
    world.train([good], "a")
    failures = world.train([bad, good], "b")
    assert len(failures) == 1 and "RuntimeError: bad luck" in failures[0] and bad.id in failures[0]
    assert world.equal(good, "a", "b")
    assert world.directory(bad, "b").record() is None
    assert world.directory(bad, "b").status().state is State.FAILED


def test_a_run_whose_first_stage_raises_leaves(world, teacher):
    good, bad = world.run("student"), world.run("poison", teacher=teacher, hyper={"kind": "stage"})
    failures = world.train([bad, good], "b")
    assert len(failures) == 1 and "RuntimeError: bad start" in failures[0]
    assert world.record(good, "b").outcome is State.DONE


def test_damage_to_a_shared_tensor_ends_the_job_and_names_the_method(world, teacher):
    runs = [world.run("poison", teacher=teacher, hyper={"kind": "damage"}), world.run("kd", teacher=teacher)]
    with pytest.raises(KdsegError, match="method poison: changed a tensor in place"):
        world.train(runs, "a")
    assert world.directory(runs[1], "a").status().state is State.FAILED


def test_a_finished_run_is_left_alone(world):
    run = world.run("student")
    world.train([run], "a")
    before = (world.directory(run, "a").path / "record.json").stat().st_mtime_ns
    assert world.train([run], "a") == []
    assert (world.directory(run, "a").path / "record.json").stat().st_mtime_ns == before


def test_runs_that_do_not_fit_together_are_refused(world, teacher):
    with pytest.raises(KdsegError, match="cannot train together"):
        world.train([world.run("student"), world.run("student", seed=1)], "a")
    with pytest.raises(KdsegError, match="cannot train together"):
        world.train([world.run("student"), world.run("kd", teacher=teacher, data_iterations=5)], "a")


@pytest.mark.parametrize(
    ("change", "what"),
    [({"dataset_hash": "x"}, "data set"), ({"protocol_hash": "x"}, "protocol"), ({"harness": 99}, "harness version")],
)
def test_a_run_that_was_planned_with_something_else_is_refused(world, change, what):
    with pytest.raises(KdsegError, match=f"its {what} changed since it was planned; plan it again"):
        world.train([world.run("student").model_copy(update=change)], "a")


def test_a_teacher_that_is_not_trained_is_one_clear_line(world):
    absent = TeacherSource(model="segformer_tiny", kind="run", id="0" * 16)
    with pytest.raises(KdsegError, match="teacher segformer_tiny: its run 0000000000000000 has not finished; train it"):
        world.train([world.run("kd", teacher=absent)], "a")
    status = world.directory(world.run("kd", teacher=absent), "a").status()
    assert status.state is State.FAILED and status.message.startswith("teacher segformer_tiny: its run")


def test_the_student_loads_strictly_into_a_plain_network_and_the_areas_are_its_own(world, teacher):
    run = world.run("noisy", teacher=teacher)
    world.train([run], "a")
    folder, record = world.directory(run, "a").path, world.record(run, "a")
    plain = build_network(run.model, 9)
    checkpoints.load_weights(plain, folder / "student.pth")
    assert checkpoints.weights_hash(plain) == record.student_sha256
    names, areas = read_areas(folder / "areas.npz")
    assert len(names) == len(areas) == 6 and areas.dtype == np.int64
    assert areas[:, 3].sum() <= 6 * 96 * 128
    assert record.cost.extra_parameters > 0 and record.provenance.teacher_sha256
    assert record.provenance.load_average >= 0
    lines = [json.loads(line) for line in (folder / "scalars.jsonl").read_text().splitlines()]
    assert {"match", "adversary", "decode.loss_ce"} <= set(lines[0])


def test_only_the_student_is_trained_never_the_teacher(world, teacher):
    file = world.folder / "a" / "runs" / teacher.id / "student.pth"
    before = file.read_bytes()
    world.train([world.run("heteroakd", teacher=teacher)], "a")
    assert file.read_bytes() == before


class CountedSampler(EndlessSampler):
    """Runner wants to know how long an epoch is; it makes no difference here."""

    def __len__(self):
        return self.size


class Reseed(Hook):
    """Gives mmengine's Runner our random streams."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.stream = stream(0, "student", "deeplabv3_tiny", runner.iter)
        self.stream.__enter__()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.stream.__exit__(None, None, None)


@pytest.fixture
def runners_logger(monkeypatch):
    """Runner makes its own logger, which writes to a file, the current one of the process: not beyond this test."""
    monkeypatch.setattr(MMLogger, "_instance_dict", MMLogger._instance_dict.copy())


@pytest.mark.usefixtures("runners_logger")
def test_a_plain_run_equals_mmengines_runner_bit_for_bit(world, tmp_path):
    """Given our sampler, seeded data set and re-seeding hook, stock training gives the same weights."""
    sgd = {"optim_optimizer": "SGD", "optim_lr": 0.05, "optim_decay_norm": True}
    run = world.run("student", optim_clip_norm=10.0, optim_warmup=2, **sgd)
    world.train([run], "a")
    protocol = definitions.protocol("demo")
    recipe = run_recipe(run)
    norm, optim = protocol.normalisation, recipe.optim
    with stream(0, "init", run.model):
        model = build_network(run.model, 9)
    model.data_preprocessor = SegDataPreProcessor(mean=norm.mean, std=norm.std, bgr_to_rgb=True, size=recipe.data.crop)
    model._is_init = True
    dataset = train_dataset(definitions.dataset("drawn"), recipe.data, None, 0)
    runner = Runner(
        model=model,
        work_dir=str(tmp_path / "runner"),
        default_scope="mmseg",
        experiment_name=str(tmp_path.name),
        train_dataloader={
            "dataset": dataset,
            "batch_size": recipe.data.batch,
            "sampler": CountedSampler(len(dataset), 0),
            "num_workers": 0,
            "collate_fn": {"type": "pseudo_collate"},
        },
        train_cfg=ConfigDict(type="IterBasedTrainLoop", max_iters=recipe.data.iterations),
        optim_wrapper=ConfigDict(
            type="OptimWrapper",
            clip_grad={"max_norm": 10.0},
            optimizer={"type": "SGD", "lr": optim.lr, "momentum": optim.momentum, "weight_decay": optim.weight_decay},
        ),
        param_scheduler=[
            {"type": "LinearLR", "start_factor": 1e-6, "begin": 0, "end": 2, "by_epoch": False},
            {
                "type": "PolyLR",
                "power": optim.power,
                "eta_min": 0.0,
                "begin": 2,
                "end": recipe.data.iterations,
                "by_epoch": False,
            },
        ],
        custom_hooks=[Reseed()],
        log_level="ERROR",
    )
    model.init_weights = lambda: None
    torch.manual_seed(1234)
    runner.train()
    assert checkpoints.weights_hash(model) == world.record(run, "a").student_sha256


@pytest.mark.slow
def test_a_damaged_resume_file_is_set_aside_and_the_older_one_used(world, teacher, caplog):
    runs = cohort(world, teacher)
    world.train(runs, "a")
    count = iter(range(1, 100))
    with pytest.raises(Interrupted):
        world.train(runs, "b", stop=lambda: next(count) == 3, checkpoint_interval=1)
    newest = world.directory(runs[1], "b").path / "resume_3.pth"
    newest.write_bytes(newest.read_bytes()[:5000])
    world.train(runs, "b")
    assert "set aside as resume_3.pth.damaged: " in caplog.text
    assert newest.with_name("resume_3.pth.damaged").exists()
    assert all(world.equal(run, "a", "b") for run in runs)


@pytest.mark.parametrize("name", ["record.json", "areas.npz"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_result_is_set_aside_and_made_again(world, caplog, name, damage):
    run = world.run("student")
    world.train([run], "a")
    world.train([run], "b")
    file = world.directory(run, "b").path / name
    file.write_bytes(file.read_bytes()[:-100]) if damage == "cut" else file.unlink()
    world.train([run], "b")
    assert ("set aside as record.json.damaged" in caplog.text) == (name == "areas.npz" or damage == "cut")
    assert world.equal(run, "a", "b")


def test_a_teacher_whose_weights_were_exchanged_is_refused(world, teacher):
    folder = world.directory(world.run(model="segformer_tiny"), "a").path
    other = build_network("segformer_tiny", 9)
    checkpoints.save(folder / "student.pth", {"state_dict": other.state_dict()})
    with pytest.raises(KdsegError, match="its weights are not those that its record names"):
        world.train([world.run("kd", teacher=teacher)], "a")


def test_the_student_alone_names_no_teacher_even_in_company(world, teacher):
    runs = [world.run("student"), world.run("kd", teacher=teacher)]
    world.train(runs, "a")
    assert world.record(runs[0], "a").provenance.teacher_sha256 is None
    assert world.record(runs[1], "a").provenance.teacher_sha256


def test_going_on_with_other_images_is_refused(world, monkeypatch):
    run = world.run("student")
    count = iter(range(1, 100))
    with pytest.raises(Interrupted):
        world.train([run], "a", stop=lambda: next(count) == 2)
    monkeypatch.setattr(SeededDataset, "list_hash", lambda self: "other")
    with pytest.raises(KdsegError, match="was begun on other images"):
        world.train([run], "a")


def test_another_number_of_images_than_the_official_is_refused_unless_meant(world, monkeypatch):
    monkeypatch.setattr(SeededDataset, "found", property(lambda self: 5, lambda self, value: None), raising=False)
    with pytest.raises(KdsegError, match="train has 5 images here, officially 12; complete it, or pass --allow-off"):
        world.train([world.run("student")], "a")


def test_starting_anew_leaves_the_resume_files_of_a_running_process_alone(world):
    run = world.run("student")
    directory = world.directory(run, "a")
    directory.create(run)
    file = directory.path / "resume_2.pth"
    file.write_bytes(b"x")
    with directory.lock(), pytest.raises(KdsegError, match="is being trained by"):
        trainer.train_job(world.job([run], "a"), resume=False)
    assert file.exists()
    trainer.train_job(world.job([run], "a"), resume=False)
    assert world.record(run, "a").provenance.resumed_at == ()


def test_changed_code_between_two_attempts_makes_the_record_dirty(world, monkeypatch):
    from benchmark.training import member

    run = world.run("student")
    monkeypatch.setattr(member, "code_version", lambda: ("first", False))
    count = iter(range(1, 100))
    with pytest.raises(Interrupted):
        world.train([run], "a", stop=lambda: next(count) == 2)
    monkeypatch.setattr(member, "code_version", lambda: ("second", False))
    world.train([run], "a")
    assert world.record(run, "a").provenance.dirty and world.record(run, "a").provenance.commit == "second"


def test_a_resume_file_of_another_layout_is_set_aside(world, caplog):
    run = world.run("student")
    count = iter(range(1, 100))
    with pytest.raises(Interrupted):
        world.train([run], "a", stop=lambda: next(count) == 2)
    file = world.directory(run, "a").path / "resume_2.pth"
    state = checkpoints.load(file)
    del state["curve"]
    checkpoints.save(file, state)
    world.train([run], "a")
    assert "resume_2.pth: does not fit run" in caplog.text
    assert world.record(run, "a").provenance.resumed_at == ()


def test_a_misspelt_tap_is_one_clear_line(world, teacher, monkeypatch):
    from tests.benchmark.fakes.noisy import Noisy

    monkeypatch.setattr(Noisy, "taps", ("pre_clasifier",))
    with pytest.raises(KdsegError, match="method noisy: unknown tap 'pre_clasifier'; did you mean pre_classifier?"):
        world.train([world.run("noisy", teacher=teacher)], "a")
