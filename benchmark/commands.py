"""What each command of `kdseg` does: a thin shell over plan, launcher, store, tables and figures."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from benchmark import definitions
from benchmark.errors import KdsegError, unknown
from benchmark.files import register
from benchmark.networks import network, networks
from benchmark.runs import Execution, Job, Run, TeacherSource, make_run
from benchmark.store import RunDirectory, State, Status, manifests, records, write_manifest

SWEEPS = Path(__file__).parent.parent / "slurm" / "sweeps"


def train(arguments: Namespace) -> int:
    """`kdseg train`: one run in this process, resumed where it was."""
    from benchmark.plan import check_on_protocol, find_weights, method_setting
    from benchmark.registry import method_class
    from benchmark.worker import run_job

    overrides = key_values(arguments.cfg_options, "--cfg-options")
    check_on_protocol(overrides, arguments.allow_off_protocol)
    files: dict[str, str] = {}
    setting = method_setting(arguments.method, key_values(arguments.set, "--set"))
    teacher = None
    if method_class(arguments.method).needs_teacher:
        teacher = _teacher(arguments, files)
    elif arguments.teacher:
        raise KdsegError(f"--teacher: method {arguments.method} has none; leave it out or name another method")
    weights = register(files, find_weights(arguments.weights, arguments.weights_dir)) if arguments.weights else None
    run = make_run(
        definitions.dataset(arguments.dataset), definitions.protocol(arguments.protocol), network(arguments.model),
        setting, seed=arguments.seed, teacher=teacher, weights=weights, overrides=overrides,
        precision="amp" if arguments.amp else "fp32",
    )  # fmt: skip
    directory = RunDirectory(arguments.work_dir, run.id)
    if directory.intact_record() is None:
        if not arguments.resume:
            for file in directory.resume_files().values():
                file.unlink()
        print(f"{setting.variant}: {arguments.model} on {arguments.dataset}, seed {run.seed}\nrun {directory.path}")
        job = _job((run,), arguments, files)
        code = run_job(job)
        if directory.record() is None:
            return code
    return _say_record(directory)


def sweep(arguments: Namespace) -> int:
    """`kdseg sweep`: all runs of a sweep, in several processes; finished ones are left alone."""
    from benchmark.plan import cohorts, load_sweep, plan_sweep
    from benchmark.progress import Progress
    from slurm.local import finished, log_file, run_jobs

    plan = plan_sweep(load_sweep(arguments.sweep), arguments.weights_dir)
    manifest, work_dir = plan.manifest, arguments.work_dir
    write_manifest(work_dir, manifest)
    for skip in manifest.skips:
        print(f"skipped: {skip.variant} on {skip.teacher} → {skip.student}: {skip.reason}")
    jobs = cohorts(plan, work_dir, arguments.data_root, _execution(arguments), arguments.cohort)
    todo = [job for job in jobs if not all(finished(run, work_dir) for run in job.runs)]
    done = sum(finished(run, work_dir) for run in manifest.runs)
    if not todo:
        print(f"sweep {manifest.sweep}: all {len(manifest.runs)} runs are done, nothing to train ({work_dir})")
        return 0
    print(f"sweep {manifest.sweep}: {len(manifest.runs)} runs, {done} done, {len(todo)} jobs to run ({work_dir})")
    with Progress(manifest, work_dir) as progress:
        outcomes = run_jobs(todo, arguments.jobs, progress.update)
    failed = [outcome for outcome in outcomes if outcome.message]
    for outcome in failed:
        print(f"failed: {outcome.message} (log: {log_file(outcome.job)})", file=sys.stderr)
    return 1 if failed else 0


def status(arguments: Namespace) -> int:
    """`kdseg status`: the state of every run; 0 all done, 1 something failed or diverged, 3 not finished yet."""
    known = manifests(arguments.work_dir)
    if arguments.sweep and arguments.sweep not in known:
        raise unknown("sweep", arguments.sweep, known, f"{arguments.work_dir}")
    chosen = [known[arguments.sweep]] if arguments.sweep else list(known.values())
    runs = {run.id: run for manifest in chosen for run in manifest.runs}
    if not arguments.sweep:
        for file in sorted((arguments.work_dir / "runs").glob("*/run.json")):
            runs.setdefault(file.parent.name, RunDirectory(arguments.work_dir, file.parent.name).inputs())
    rows = [_status_row(run, arguments.work_dir) for run in runs.values()]
    if arguments.format == "json":
        print(json.dumps(rows, indent=1))
    else:
        _print_table(f"{len(rows)} runs in {arguments.work_dir}", rows)
    states = {row["state"] for row in rows}
    if states & {State.FAILED, State.DIVERGED, State.STALE}:
        return 1
    return 0 if states <= {State.DONE} else 3


def tables(arguments: Namespace) -> int:
    """`kdseg tables`: mIoU tables from records."""
    from benchmark.frame import records_frame
    from benchmark.render import to_terminal, write_tables
    from benchmark.tables import main_tables

    formats = arguments.format.split(",")
    for name in formats:
        if name not in ("md", "csv", "terminal"):
            raise unknown("format", name, ("md", "csv", "terminal"), "--format")
    work_dir = arguments.work_dir
    made = main_tables(records_frame(_records(work_dir)), manifests(work_dir).values(), _reason(work_dir))
    out = arguments.out or work_dir / "tables"
    written = write_tables(made, out, [name for name in formats if name != "terminal"])
    if "terminal" in formats:
        for table in made:
            Console().print(to_terminal(table))
    _say_where({"tables": [str(path) for path in written], "records": [str(_record_folder(work_dir))]})
    return 0


def figures(arguments: Namespace) -> int:
    """`kdseg figures`: figures from records."""
    from benchmark.figures import figure6
    from benchmark.frame import records_frame, with_delta

    out = arguments.out or arguments.work_dir / "figures"
    _say_where(
        {"figures": [str(path) for path in figure6(with_delta(records_frame(_records(arguments.work_dir))), out)]}
    )
    return 0


def list_names(arguments: Namespace) -> int:
    """`kdseg list`: names with a line each."""
    rows: dict[str, Callable[[], Any]] = {
        "methods": _method_rows,
        "models": lambda: [
            {"model": n.name, "title": n.title, "family": n.family, "parameters": f"{n.parameters / 1e6:.2f} M"}
            for n in networks().values()
        ],
        "datasets": lambda: [_definition_row("dataset", definitions.dataset(n)) for n in definitions.names("datasets")],
        "protocols": lambda: [
            _definition_row("protocol", definitions.protocol(n)) for n in definitions.names("protocols")
        ],
        "sweeps": lambda: [{"sweep": str(path)} for path in sorted(SWEEPS.glob("*.yaml"))],
    }
    _print_table("", rows[arguments.kind]())
    return 0


def show(arguments: Namespace) -> int:
    """`kdseg show`: everything about one name."""
    from benchmark.registry import method_class, method_files

    name = arguments.name
    if name in method_files():
        kind = method_class(name)
        print(f"{kind.title} ({method_files()[name].replace('.', '/')}.py), version {kind.version}\n{kind.source}\n")
        print((kind.__doc__ or "").strip() + "\n")
        _print_table("hyper-parameters", [{"name": key, "default": str(v)} for key, v in kind.defaults().items()])
        if kind.variants:
            _print_table("named settings", [{"name": k, "differs in": _pairs(v)} for k, v in kind.variants.items()])
        return 0
    if name in networks():
        facts = network(name)
        print(f"{facts.title}: {facts.family}, {facts.parameters / 1e6:.2f} M parameters without auxiliary head,")
        print(f"{facts.gflops} GFLOPs (2 per multiply-add) at {facts.size[0]}×{facts.size[1]}, {facts.classes} classes")
        rows = [{"tap": key, "channels": t.channels, "stride": t.stride} for key, t in facts.taps.items()]
        _print_table("taps", rows)
        return 0
    for kind, load in (("datasets", definitions.dataset), ("protocols", definitions.protocol)):
        if name in definitions.names(kind):
            Console().print_json(load(name).model_dump_json())
            return 0
    known = [*method_files(), *networks(), *definitions.names("datasets"), *definitions.names("protocols")]
    raise unknown("name", name, known)


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


def analyze(arguments: Namespace) -> int:
    """`kdseg analyze networks`: build every network and write `networks.json`."""
    from benchmark.networks import FACTS
    from benchmark.toolbox.networks import write_facts

    write_facts(FACTS)
    _say_where({arguments.what: [str(FACTS)]})
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
        try:
            found[key] = YAML(typ="safe", pure=True).load(StringIO(text))
        except YAMLError:
            raise KdsegError(f"{option}: {key}: {text!r} is not a value") from None
    return found


def _execution(arguments: Namespace) -> Execution:
    return Execution(
        device=arguments.device, threads=arguments.threads, workers=arguments.workers,
        deterministic=arguments.deterministic, checkpoint_interval=arguments.checkpoint_interval,
    )  # fmt: skip


def _job(runs: tuple[Run, ...], arguments: Namespace, files: Mapping[str, str]) -> Job:
    root = str(arguments.data_root) if arguments.data_root else None
    return Job(
        runs=runs, work_dir=str(arguments.work_dir), data_root=root, files=dict(files), execution=_execution(arguments)
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
    _say_where({"record": [str(directory.path / "record.json")]})
    return 0


def _status_row(run: Run, work_dir: Path) -> dict[str, Any]:
    directory = RunDirectory(work_dir, run.id)
    try:
        now, record = directory.status(), directory.record()
    except KdsegError as error:
        now = Status(state=State.FAILED, iteration=0, iterations=0, time=0, host="", pid=0, message=str(error))
        record = None
    state = record.outcome if record else now.state if now else State.WAITING
    done = f"{record.result.last.miou:.2f}" if record and record.result else ""
    progress = f"{now.iteration}/{now.iterations}" if now else ""
    return {
        "run": run.id, "model": run.model, "teacher": run.teacher.model if run.teacher else "–",
        "method": run.method.variant, "seed": run.seed, "state": str(state), "iteration": progress, "mIoU": done,
        "message": now.message if now else "",
    }  # fmt: skip


def _reason(work_dir: Path) -> Callable[[str], str]:
    """Why a run has no result, for the footnote of a hole."""

    def reason(run_id: str) -> str:
        now = RunDirectory(work_dir, run_id).status()
        if now is None:
            return "not run"
        return f"{now.state} at iteration {now.iteration} of {now.iterations}" + (
            f": {now.message}" if now.message else ""
        )

    return reason


def _record_folder(work_dir: Path) -> Path:
    """Where the run directories of a work directory are; a folder of records is one itself."""
    return work_dir / "runs" if (work_dir / "runs").is_dir() else work_dir


def _records(work_dir: Path) -> Any:
    found = records(work_dir)
    if not found:
        raise KdsegError(f"{work_dir}: holds no records; run a sweep first, or pass --work-dir")
    return found


def _method_rows() -> Any:
    from benchmark.registry import method_class, method_files

    kinds = {name: method_class(name) for name in method_files()}
    return [{"method": name, "title": k.title, "version": k.version, "source": k.source} for name, k in kinds.items()]


def _definition_row(kind: str, definition: Any) -> dict[str, str]:
    return {kind: definition.name, "title": definition.title, "source": definition.source}


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _print_table(title: str, rows: Any) -> None:
    table = RichTable(title=title or None, title_justify="left")
    for column in rows[0] if rows else ():
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)


def _say_where(places: Mapping[str, Any]) -> None:
    for kind, paths in places.items():
        for path in paths:
            print(f"{kind}: {path}")
