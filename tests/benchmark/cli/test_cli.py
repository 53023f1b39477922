import json
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch

from benchmark.cli.__main__ import main, parser
from benchmark.cli.train import key_values
from benchmark.core.errors import KdsegError
from benchmark.models.build import build_network
from benchmark.records.record import State
from benchmark.records.run_directory import write_manifest
from benchmark.spec.runs import Manifest
from tests.benchmark.models.test_checkpoints import Evil

COMMANDS = tuple(parser()._subparsers._group_actions[0].choices)
HEAVY = ("torch", "mmengine", "mmseg", "mmcv")
TINY = ["--dataset", "drawn", "--protocol", "demo", "--model", "deeplabv3_tiny"]
SHORT = ["--cfg-options", "data.iterations=2", "data.crop=[48, 64]", "optim.warmup=0"]


def loaded(code: str) -> set[str]:
    """Which packages a fresh Python has imported after some code."""
    report = f"{code}\nimport sys\nprint('LOADED', *{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("LOADED ")[2].split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_ends_with_an_example_that_can_be_parsed(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    example = text.rpartition("example:\n  kdseg ")[2].split()
    assert parser().parse_args(example).command == command


def test_parsing_imports_nothing_heavy():
    assert not loaded("from benchmark.cli.__main__ import parser; parser()") & {
        *HEAVY,
        "numpy",
        "pandas",
        "pydantic",
        "rich",
    }


def test_the_version_names_the_commit_in_a_checkout(capsys, monkeypatch):
    for (commit, changed), said in (
        (("0123456789abcdef", False), " (0123456)"),
        (("0123456789abcdef", True), " (0123456+)"),
        (("unknown", True), ""),
    ):
        monkeypatch.setattr("benchmark.core.environment.code_version", lambda found=(commit, changed): found)
        with pytest.raises(SystemExit) as end:
            main(["--version"])
        assert (end.value.code, capsys.readouterr().out) == (0, f"kdseg {version('kdseg')}{said}\n")


def test_the_version_imports_nothing_heavy_and_only_it_runs_git():
    asked = loaded("from benchmark.cli.__main__ import main\ntry: main(['--version'])\nexcept SystemExit: pass")
    assert not asked & {*HEAVY, "numpy", "pandas", "pydantic", "rich"}
    assert "subprocess" in asked
    assert "subprocess" not in loaded("from benchmark.cli.__main__ import parser; parser()")


@pytest.mark.parametrize("command", ["status", "logs x", "cancel x", "tables", "figures"])
def test_what_reads_records_imports_no_torch(command, tmp_path):
    code = f"from benchmark.cli.__main__ import main; main([*{command.split()!r}, '--work-dir', {str(tmp_path)!r}])"
    assert not loaded(code) & set(HEAVY)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["show", "kdd"], "error: unknown name 'kdd'; did you mean kd"),
        (["sweep", "none.yaml"], "error: none.yaml: no such file"),
        (["status", "demoo", "--work-dir", "nowhere"], "error: nowhere: unknown sweep 'demoo'; known: none"),
        (["tables", "--work-dir", "nowhere"], "error: nowhere: holds no records; run a sweep first, or pass"),
        (["train", *TINY, "--method", "hetroakd"], "error: unknown method 'hetroakd'; did you mean heteroakd?"),
        (["train", *TINY[:-1], "deeplabv3_tny"], "error: unknown model 'deeplabv3_tny'; did you mean deeplabv3_tiny"),
        (["train", *TINY, "--method", "kd"], "error: method kd: needs --teacher RUN, or --teacher CHECKPOINT"),
        (["train", *TINY, "--teacher", "x"], "error: --teacher: method student has none; leave it out"),
        (["train", *TINY, "--method", "kd", "--teacher", "x"], "error: --teacher x: neither a run in work_dirs nor a"),
        (["train", *TINY, "--set", "a=1"], "error: method student: unknown key 'a'; known: none"),
        (["train", *TINY, "--set", "a"], "error: --set: 'a' is not KEY=VALUE"),
        (["train", *TINY, "--set", "a=1", "--set", "a=2"], "error: --set: a is given twice"),
        (["train", *TINY, "--cfg-options", "optim.lr=fast"], "error: --cfg-options: optim.lr: Input should be"),
        (["train", *TINY, "--cfg-options", "data.batch=3"], "error: data.batch: protocol demo has 4; another"),
        (["train", *TINY, "--weights", "none.pth"], "error: weights none.pth: no such file"),
        (["train", *TINY, "--amp", *SHORT], "error: --amp: needs a CUDA device; train in fp32 here"),
    ],
)
def test_every_mistake_is_one_clear_line(arguments, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "--amp" in arguments:
        arguments = [*arguments, "--device", "cpu"]
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith(line)
    assert not any("Traceback" in text for text in said)


@pytest.mark.parametrize("option", ["--jobs", "--cohort", "--checkpoint-interval", "--threads"])
@pytest.mark.parametrize("value", ["0", "-1", "x"])
def test_counts_below_one_are_refused(option, value, capsys):
    with pytest.raises(SystemExit) as end:
        main(["sweep", "slurm/sweeps/tiny.yaml", option, value])
    assert end.value.code == 2
    assert f"argument {option}: invalid positive value: '{value}'" in capsys.readouterr().err


def test_a_damaged_result_is_not_taken_for_done(world):
    run = world.run("student")
    world.train([run], "b")
    assert world.directory(run, "b").finished()
    (world.directory(run, "b").path / "areas.npz").write_bytes(b"junk")
    assert not world.directory(run, "b").finished()


def test_camvid_without_its_files_is_one_clear_line(capsys, tmp_path):
    arguments = ["train", "--dataset", "camvid", "--protocol", "camvid-small", "--model", "deeplabv3_tiny"]
    assert main([*arguments, "--work-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: dataset camvid: needs its files; pass --data-root DIR\n"


def test_debug_shows_the_traceback():
    with pytest.raises(KdsegError):
        main(["show", "kdd", "--debug"])


@pytest.mark.parametrize("kind", ["methods", "models", "datasets", "protocols", "sweeps"])
def test_lists_name_what_there_is(kind, capsys):
    assert main(["list", kind]) == 0
    expected = {
        "methods": "heteroakd",
        "models": "segformer",
        "datasets": "drawn",
        "protocols": "demo",
        "sweeps": "tiny",
    }
    assert expected[kind] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "text"),
    [("heteroakd", "lambda2"), ("deeplabv3_mbv2", "320"), ("drawn", "generator"), ("demo", "recipes")],
)
def test_show_tells_all_about_a_name(name, text, capsys):
    assert main(["show", name]) == 0
    assert text in capsys.readouterr().out


def test_train_a_student_then_distil_it_then_say_that_it_is_done(world, capsys):
    place = ["--work-dir", str(world.folder / "new"), "--device", "cpu"]
    assert main(["train", *TINY[:-1], "segformer_tiny", *SHORT, *place]) == 0
    said = capsys.readouterr().out
    assert "mIoU" in said and "record:" in said
    teacher = next((world.folder / "new" / "runs").iterdir())
    again = ["train", *TINY, "--method", "kd", "--set", "tau=2", "--teacher", teacher.name, *SHORT, *place]
    assert main(again) == 0
    first = capsys.readouterr().out
    assert main(again) == 0
    assert capsys.readouterr().out.splitlines()[-1] == first.splitlines()[-1]
    as_file = ["train", *TINY, "--method", "kd", "--teacher", str(teacher / "student.pth"), *SHORT, *place]
    assert main(as_file) == 2
    assert "say of which network with --teacher-model" in capsys.readouterr().err
    assert main([*as_file, "--teacher-model", "segformer_tiny"]) == 0


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        ("gone", "--teacher {file}: neither a run in {work} nor a checkpoint file"),
        ("cut", "{file}: not a readable checkpoint, perhaps truncated: "),
        ("other network", "{file}: does not fit this network: 122 missing (first "),
        ("other classes", "{file}: does not fit this network: 2 of another shape (first decode_head.conv_seg.weight)"),
        ("no weights", "{file}: holds no state dict; expected parameter names with tensors"),
        ("evil", "{file}: refused, nothing was run: it holds more than weights and could run code ("),
    ],
)
def test_a_teacher_that_cannot_teach_is_one_clear_line(world, trained_teacher, spoil, line, capsys):
    file, trace, work = world.folder / "teacher.pth", world.folder / "trace", world.folder / "new"
    content = (trained_teacher[0] / "student.pth").read_bytes()
    if spoil != "gone":
        file.write_bytes(content[: 5000 if spoil == "cut" else None])
    if spoil in ("other network", "other classes"):
        model, classes = ("deeplabv3_tiny", 9) if spoil == "other network" else ("segformer_tiny", 4)
        torch.save({"state_dict": build_network(model, classes).state_dict()}, file)
    if spoil == "no weights":
        torch.save([1, 2], file)
    if spoil == "evil":
        torch.save({"state_dict": Evil(trace)}, file)
    arguments = ["train", *TINY, "--method", "kd", "--teacher", str(file), "--teacher-model", "segformer_tiny"]
    assert main([*arguments, *SHORT, "--work-dir", str(work)]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: " + line.format(file=file, work=work))
    assert "\n" not in said and not trace.exists()


def test_status_tells_states_and_the_exit_code_follows(world, teacher, capsys):
    runs = (world.run("student"), world.run("poison", teacher=teacher))
    folder = world.folder / "a"
    write_manifest(folder, Manifest(sweep="test", runs=runs))
    arguments = ["status", "test", "--work-dir", str(folder), "--format", "json"]
    assert main(arguments) == 3
    assert {row["state"] for row in json.loads(capsys.readouterr().out)} == {State.WAITING}
    world.train([runs[0]], "a")
    assert main(arguments) == 3
    capsys.readouterr()
    world.train([runs[1]], "a")
    assert main(arguments) == 1
    rows = {row["method"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["Student"]["state"] == "done" and rows["Student"]["miou"] > 0
    assert rows["Poison"]["state"] == "diverged" and rows["Poison"]["iteration"] == 3


def test_clean_removes_only_what_finished_runs_do_not_need(world, capsys):
    run = world.run("student")
    world.train([run], "b")
    folder = world.directory(run, "b").path
    (folder / "resume_2.pth").write_bytes(b"x")
    keep = {"student.pth", "record.json", "areas.npz", "run.json", "status.json", "scalars.jsonl"}
    assert main(["clean", "--work-dir", str(world.folder / "b")]) == 0
    assert "would remove" in capsys.readouterr().out and (folder / "best.pth").exists()
    assert main(["clean", "--work-dir", str(world.folder / "b"), "--yes"]) == 0
    assert keep <= {file.name for file in folder.iterdir()} <= keep | {"lease_1.json"}
    assert world.record(run, "b").result


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a=1e-4", 1e-4),
        ("a=true", True),
        ("a=x", "x"),
        ("a=[1, 2]", [1, 2]),
        ("a=b=c", "b=c"),
        ("a=", None),
    ],
)
def test_values_are_read_as_yaml(text, value):
    assert key_values([text], "--set") == {"a": value}
