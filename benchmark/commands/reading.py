"""Commands that read what runs left: `status`, `tables`, `figures`. They import no torch."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from benchmark.commands.output import print_table, say_where
from benchmark.errors import KdsegError, unknown
from benchmark.runs import Run
from benchmark.store import RunDirectory, State, Status, manifests, records

if TYPE_CHECKING:
    from benchmark.results import Results


def status(arguments: Namespace) -> int:
    """`kdseg status`: the state of every run; 0 all done, 1 something failed or diverged, 3 not finished yet."""
    known = manifests(arguments.work_dir)
    if arguments.sweep and arguments.sweep not in known:
        raise unknown("sweep", arguments.sweep, known, f"{arguments.work_dir}")
    chosen = [known[arguments.sweep]] if arguments.sweep else list(known.values())
    runs = {run.id: run for manifest in chosen for run in manifest.runs}
    if not arguments.sweep:
        for file in sorted((arguments.work_dir / "runs").glob("*/run.json")):
            try:
                runs.setdefault(file.parent.name, RunDirectory(arguments.work_dir, file.parent.name).inputs())
            except KdsegError as error:
                print(f"left out: {error}", file=sys.stderr)
    rows = [_status_row(run, arguments.work_dir) for run in runs.values()]
    if arguments.format == "json":
        print(json.dumps(rows, indent=1))
    else:
        print_table(f"{len(rows)} runs in {arguments.work_dir}", rows)
    states = {row["state"] for row in rows}
    if states & {State.FAILED, State.DIVERGED, State.STALE}:
        return 1
    return 0 if states <= {State.DONE} else 3


def tables(arguments: Namespace) -> int:
    """`kdseg tables`: tables from records."""
    from benchmark.render import RENDERERS, to_terminal, write_tables
    from benchmark.tables import make_tables

    formats = arguments.format.split(",")
    for name in formats:
        if name not in (*RENDERERS, "terminal"):
            raise unknown("format", name, (*RENDERERS, "terminal"), "--format")
    made = make_tables(results(arguments.work_dir), arguments.name)
    out = arguments.out or arguments.work_dir / "tables"
    written = write_tables(made, out, [name for name in formats if name != "terminal"])
    if "terminal" in formats:
        for table in made:
            Console().print(to_terminal(table))
    say_where({"tables": [str(path) for path in written], "records": [str(_record_folder(arguments.work_dir))]})
    return 0


def results(work_dir: Path) -> Results:
    """All that is known of the runs in a work directory, or in a folder of records.

    Raises:
        KdsegError: it holds no records.
    """
    from benchmark.results import Results

    folder = _record_folder(work_dir)
    return Results.of(
        _records(work_dir),
        manifests(work_dir).values(),
        _reason(work_dir),
        lambda run_id: folder / run_id / "areas.npz",
    )


def figures(arguments: Namespace) -> int:
    """`kdseg figures`: figures from records."""
    from benchmark.figures import figure6
    from benchmark.frame import records_frame, with_delta

    out = arguments.out or arguments.work_dir / "figures"
    say_where(
        {"figures": [str(path) for path in figure6(with_delta(records_frame(_records(arguments.work_dir))), out)]}
    )
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
