"""`kdseg logs`: the end of a run's logs."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from benchmark.cli.options import Commands, add_command, add_work_dir, positive
from benchmark.core.errors import KdsegError, unknown


def add_commands(commands: Commands) -> None:
    """Declare `kdseg logs`."""
    sub = add_command(
        commands, logs, "logs", "the end of a run's logs", "kdseg logs 7c1d04a5 --work-dir work_dirs/demo"
    )
    sub.add_argument("run", help="the start of its id, or its folder")
    sub.add_argument("--lines", type=positive, default=40, help="of each file (default 40)")
    add_work_dir(sub)


def logs(arguments: Namespace) -> int:
    """`kdseg logs`: the end of a run's logs, and where they are."""
    from slurm.submissions import attempts, submissions

    work_dir = arguments.work_dir
    id_ = _run_id(arguments.run, work_dir)
    attempt = attempts(submissions(work_dir)).get(id_)
    if attempt:
        files = [Path(attempt.submission.log(attempt.index, kind)) for kind in ("out", "err")]
    else:
        jobs = sorted((work_dir / "jobs").glob("*.json"), key=lambda file: file.stat().st_mtime)
        files = [file.with_suffix(".log") for file in jobs if id_ in _job_runs(file)][-1:]
    there = [file for file in files if file.is_file()]
    if not there:
        note = f"; job {attempt.element} has not begun" if attempt else ""
        raise KdsegError(f"run {id_}: has no log yet{note}")
    for file in there:
        print(f"==> {file}")
        print("\n".join(file.read_text(errors="replace").splitlines()[-arguments.lines :]))
    return 0


def _run_id(name: str, work_dir: Path) -> str:
    """The id of a run that is named by the start of its id, or by its folder."""
    from benchmark.records.run_directory import manifests

    start = Path(name).name
    ids = {path.name for path in (work_dir / "runs").glob("*")}
    ids |= {run.id for manifest in manifests(work_dir).values() for run in manifest.runs}
    fits = sorted(id_ for id_ in ids if id_.startswith(start))
    if len(fits) > 1:
        raise KdsegError(f"run {name}: more than one begins so: {', '.join(fits[:4])}")
    if not fits:
        raise unknown("run", name, ids, str(work_dir))
    return fits[0]


def _job_runs(file: Path) -> set[str]:
    """The ids of the runs of a job file."""
    from benchmark.core.schema import parse, read_json
    from benchmark.spec.runs import Job

    return {run.id for run in parse(Job, read_json(file), str(file)).runs}
