"""`kdseg train`: one run, a student with a method or alone."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.cli.options import Commands, add_command, add_execution, execution, select_on
from benchmark.cli.output import say_where
from benchmark.core.errors import KdsegError

if TYPE_CHECKING:
    from benchmark.records.run_directory import RunDirectory
    from benchmark.spec.runs import Job, Run, TeacherSource


def add_commands(commands: Commands) -> None:
    """Declare `kdseg train`."""
    sub = add_command(
        commands,
        train,
        "train",
        "train one run: a student with a method, or alone",
        "kdseg train --dataset drawn --protocol demo --model deeplabv3_mbv2 --method student --seed 0",
    )
    sub.add_argument("--dataset", required=True, help="see `kdseg list datasets`")
    sub.add_argument("--protocol", required=True, help="see `kdseg list protocols`")
    sub.add_argument("--model", required=True, help="the network to train; see `kdseg list models`")
    sub.add_argument("--method", default="student", help="see `kdseg list methods` (default: student, no distillation)")
    pairs: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    sub.add_argument("--set", metavar="NAME=VALUE", help="hyper-parameters of the method", **pairs)
    sub.add_argument("--teacher", metavar="RUN|FILE", help="id or folder of the teacher's run, or a checkpoint")
    sub.add_argument("--teacher-model", help="the architecture of a teacher checkpoint")
    sub.add_argument("--teacher-miou", type=float, help="published mIoU of the teacher; another one here warns")
    sub.add_argument("--weights", help="file with the initial backbone weights (default: none, from scratch)")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--amp", action="store_true", help="mixed precision (needs a GPU)")
    sub.add_argument("--cfg-options", metavar="KEY=VALUE", help="e.g. optim.lr=0.01", **pairs)
    sub.add_argument(
        "--resume", action=argparse.BooleanOptionalAction, default=True, help="go on from the newest resume file"
    )
    add_execution(sub)


def train(arguments: Namespace) -> int:
    """`kdseg train`: one run in this process, resumed where it was."""
    from benchmark.core.weights import find_weights, register
    from benchmark.method.recipes import make_method, method_setting, recipe_note
    from benchmark.records.run_directory import RunDirectory
    from benchmark.spec import definitions
    from benchmark.spec.networks import Pair, network
    from benchmark.spec.runs import make_run
    from benchmark.sweeps.plan import check_on_protocol
    from benchmark.training.worker import run_job

    overrides = key_values(arguments.cfg_options, "--cfg-options") | select_on(arguments)
    files: dict[str, str] = {}
    setting = method_setting(arguments.method, key_values(arguments.set, "--set"), arguments.dataset)
    teacher = None
    if make_method(setting.name, setting.hyper).needs_teacher:
        teacher = _teacher(arguments, files)
        pair = Pair(student=network(arguments.model), teacher=network(teacher.model))
        setting = setting.model_copy(update={"note": recipe_note(setting.name, arguments.dataset, pair)})
    elif arguments.teacher:
        raise KdsegError(f"--teacher: method {arguments.method} has none; leave it out or name another method")
    weights = register(files, find_weights(arguments.weights, arguments.weights_dir)) if arguments.weights else None
    run = make_run(
        definitions.dataset(arguments.dataset),
        definitions.protocol(arguments.protocol),
        network(arguments.model),
        setting,
        seed=arguments.seed,
        teacher=teacher,
        weights=weights,
        overrides=overrides,
        precision="amp" if arguments.amp else "fp32",
    )
    check_on_protocol(run, arguments.allow_off_protocol)
    directory = RunDirectory(arguments.work_dir, run.id)
    if not directory.finished():
        print(f"{setting.variant}: {arguments.model} on {arguments.dataset}, seed {run.seed}\nrun {directory.path}")
        published = {teacher.id: arguments.teacher_miou} if teacher and arguments.teacher_miou is not None else {}
        job = _job((run,), arguments, files).model_copy(update={"teacher_miou": published})
        code = run_job(job, arguments.resume)
        if directory.record() is None:
            return code
    return _say_record(directory)


def key_values(pairs: Iterable[str], option: str) -> dict[str, Any]:
    """`a.b=c` pairs as a dict; values are read as YAML, so 1e-4 is a number and true a truth value."""
    from io import StringIO

    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    values = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise KdsegError(f"{option}: {pair!r} is not KEY=VALUE")
        if key in values:
            raise KdsegError(f"{option}: {key} is given twice")
        try:
            values[key] = YAML(typ="safe", pure=True).load(StringIO(text))
        except YAMLError:
            raise KdsegError(f"{option}: {key}: {text!r} is not a value") from None
    return values


def _job(runs: tuple[Run, ...], arguments: Namespace, files: Mapping[str, str]) -> Job:
    from benchmark.spec.runs import Job

    root = str(arguments.data_root) if arguments.data_root else None
    return Job(
        runs=runs,
        work_dir=str(arguments.work_dir),
        data_root=root,
        files=dict(files),
        execution=execution(arguments),
        off_protocol=arguments.allow_off_protocol,
    )


def _teacher(arguments: Namespace, files: dict[str, str]) -> TeacherSource:
    """The teacher that `--teacher` names: a finished run, or a checkpoint file of `--teacher-model`."""
    from benchmark.core.weights import register
    from benchmark.records.run_directory import RunDirectory
    from benchmark.spec.networks import network
    from benchmark.spec.runs import TeacherSource

    teacher = arguments.teacher
    if teacher is None:
        raise KdsegError(
            f"method {arguments.method}: needs --teacher RUN, or --teacher CHECKPOINT with --teacher-model"
        )
    folder = Path(teacher) if (Path(teacher) / "run.json").is_file() else arguments.work_dir / "runs" / teacher
    if (folder / "run.json").is_file():
        if folder.resolve().parent != (arguments.work_dir / "runs").resolve():
            raise KdsegError(
                f"--teacher {teacher}: is not a run of {arguments.work_dir}; pass its student.pth as a checkpoint"
            )
        run = RunDirectory(arguments.work_dir, folder.name).inputs()
        return TeacherSource(model=run.model, kind="run", id=run.id)
    if not Path(teacher).is_file():
        raise KdsegError(f"--teacher {teacher}: neither a run in {arguments.work_dir} nor a checkpoint file")
    if not arguments.teacher_model:
        raise KdsegError(f"--teacher {teacher}: is a checkpoint; say of which network with --teacher-model")
    return TeacherSource(
        model=network(arguments.teacher_model).name, kind="checkpoint", id=register(files, Path(teacher).resolve())
    )


def _say_record(directory: RunDirectory) -> int:
    record = directory.record()
    if record is None:
        raise KdsegError(f"{directory.path}: has no record")
    if record.result is None:
        print(f"diverged at iteration {record.iterations}: {record.divergence and record.divergence.reason}")
        return 3
    cost = record.cost
    print(f"mIoU {record.result.last.miou:.2f} at iteration {record.iterations} (best {record.result.best.miou:.2f})")
    print(f"{cost.iteration_s:.3f} s/iteration, {cost.memory_mb:.0f} MB, {cost.wall_s:.0f} s in all")
    say_where({"record": [str(directory.path / "record.json")]})
    return 0
