"""Commands that train one run, `train`, and clean up after it, `clean`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.cli.output import say_where
from benchmark.core.errors import KdsegError
from benchmark.core.weights import find_weights, register
from benchmark.records.run_directory import RunDirectory
from benchmark.spec import definitions
from benchmark.spec.networks import Pair, network
from benchmark.spec.runs import Execution, Job, Run, TeacherSource, make_run


def train(arguments: Namespace) -> int:
    """`kdseg train`: one run in this process, resumed where it was."""
    from benchmark.method.recipes import make_method, method_setting, recipe_note
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


def clean(arguments: Namespace) -> int:
    """`kdseg clean`: resume files, best weights and temporary files that finished runs no longer need."""
    runs = arguments.work_dir / "runs"
    ended = [file.parent for file in sorted(runs.glob("*/record.json"))]
    patterns = ("resume_*.pth", "best.pth", ".*.tmp")
    files = [file for folder in ended for pattern in patterns for file in sorted(folder.glob(pattern))]
    size = sum(file.stat().st_size for file in files) / 2**20
    for file in files:
        print(f"{'removed' if arguments.yes else 'would remove'} {file}")
        if arguments.yes:
            file.unlink()
    print(f"{len(files)} files, {size:.1f} MiB" + ("" if arguments.yes or not files else "; add --yes to remove them"))
    return 0


def key_values(pairs: Any, option: str) -> dict[str, Any]:
    """`a.b=c` pairs as a dict; values are read as YAML, so 1e-4 is a number and true a truth value."""
    from io import StringIO

    from ruamel.yaml import YAML, YAMLError

    found = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise KdsegError(f"{option}: {pair!r} is not KEY=VALUE")
        if key in found:
            raise KdsegError(f"{option}: {key} is given twice")
        try:
            found[key] = YAML(typ="safe", pure=True).load(StringIO(text))
        except YAMLError:
            raise KdsegError(f"{option}: {key}: {text!r} is not a value") from None
    return found


def execution(arguments: Namespace) -> Execution:
    """How jobs are carried out, by the options that `train`, `sweep` and `submit` share."""
    return Execution(
        device=arguments.device,
        threads=arguments.threads,
        workers=arguments.workers or 0,
        deterministic=arguments.deterministic,
        checkpoint_interval=arguments.checkpoint_interval,
        stage=str(arguments.stage) if arguments.stage else None,
        strict_teacher=arguments.strict_teacher,
        wandb=arguments.wandb,
    )


def select_on(arguments: Namespace) -> dict[str, str]:
    """The override that `--select-on` stands for; none for the validation images, so that run ids stay as they are."""
    return {} if arguments.select_on == "val" else {"data.select_on": arguments.select_on}


def _job(runs: tuple[Run, ...], arguments: Namespace, files: Mapping[str, str]) -> Job:
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
    given = arguments.teacher
    if given is None:
        raise KdsegError(
            f"method {arguments.method}: needs --teacher RUN, or --teacher CHECKPOINT with --teacher-model"
        )
    folder = Path(given) if (Path(given) / "run.json").is_file() else arguments.work_dir / "runs" / given
    if (folder / "run.json").is_file():
        if folder.resolve().parent != (arguments.work_dir / "runs").resolve():
            raise KdsegError(
                f"--teacher {given}: is not a run of {arguments.work_dir}; pass its student.pth as a checkpoint"
            )
        run = RunDirectory(arguments.work_dir, folder.name).inputs()
        return TeacherSource(model=run.model, kind="run", id=run.id)
    if not Path(given).is_file():
        raise KdsegError(f"--teacher {given}: neither a run in {arguments.work_dir} nor a checkpoint file")
    if not arguments.teacher_model:
        raise KdsegError(f"--teacher {given}: is a checkpoint; say of which network with --teacher-model")
    return TeacherSource(
        model=network(arguments.teacher_model).name, kind="checkpoint", id=register(files, Path(given).resolve())
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
