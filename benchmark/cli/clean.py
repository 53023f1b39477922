"""`kdseg clean`: remove what finished runs no longer need."""

from __future__ import annotations

from argparse import Namespace

from benchmark.cli.options import Commands, add_command, add_work_dir


def add_commands(commands: Commands) -> None:
    """Declare `kdseg clean`."""
    sub = add_command(
        commands,
        clean,
        "clean",
        "remove what finished runs no longer need",
        "kdseg clean --work-dir work_dirs/demo --yes",
    )
    sub.add_argument("--yes", action="store_true", help="really remove (default: only say what)")
    add_work_dir(sub)


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
