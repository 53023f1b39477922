"""`kdseg records`: records to and from other machines. It imports no torch."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from benchmark.cli.input import record_folder
from benchmark.cli.options import Commands, add_command, add_work_dir


def add_commands(commands: Commands) -> None:
    """Declare `kdseg records`."""
    sub = add_command(
        commands,
        move_records,
        "records",
        "records to and from other machines, checked and merged without duplicates",
        "kdseg records export records.tar.gz --work-dir work_dirs/demo",
    )
    sub.add_argument("action", choices=("export", "import"))
    sub.add_argument("file", type=Path, help="the archive, .tar.gz")
    sub.add_argument("--students", action="store_true", help="export: the students' weights, too")
    add_work_dir(sub)


def move_records(arguments: Namespace) -> int:
    """`kdseg records`: to and from other machines; 1 if something was left out."""
    from benchmark.records.archive import export_records, import_records

    work_dir, file = arguments.work_dir, arguments.file
    faults: Sequence[str]
    if arguments.action == "export":
        folders = [path.parent for path in record_folder(work_dir).glob("*/record.json")]
        faults = export_records(folders, (work_dir / "sweeps").glob("*.json"), file, arguments.students)
        print(f"{len(folders) - len(faults)} records: {file}")
    else:
        folder = record_folder(work_dir) if any(work_dir.glob("*/record.json")) else work_dir / "runs"
        imported = import_records(file, lambda run_id: folder / run_id, work_dir / "sweeps")
        faults = imported.refused
        print(f"{len(imported.new)} new records, {len(imported.known)} were there already: {folder}")
    for fault in faults:
        print(f"left out: {fault}", file=sys.stderr)
    return 1 if faults else 0
