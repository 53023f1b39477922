"""The command line `kdseg`: what can be typed. What it does is in `benchmark.commands`, imported after parsing."""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path

from benchmark.errors import KdsegError

WORK_DIR = Path("work_dirs")


def main(argv: list[str] | None = None) -> int:
    """Parse, run, and turn every mistake of the user's into one line; `--debug` shows the traceback."""
    arguments = parser().parse_args(argv)
    try:
        from benchmark import commands

        return getattr(commands, arguments.handler)(arguments)
    except KdsegError as error:
        if arguments.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if arguments.debug:
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        print(f"error: {type(error).__name__}: {error} ({where}; --debug shows the traceback)", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """All commands with their options; each help ends with an example."""
    root = argparse.ArgumentParser(prog="kdseg", description="Which distillation method for segmentation really works?")
    root.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, about: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=about, description=about, epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
        sub.set_defaults(handler=name)
        return sub

    train = command(
        "train", "train one run: a student with a method, or alone",
        "kdseg train --dataset drawn --protocol demo --model deeplabv3_mbv2 --method student --seed 0",
    )  # fmt: skip
    train.add_argument("--dataset", required=True, help="see `kdseg list datasets`")
    train.add_argument("--protocol", required=True, help="see `kdseg list protocols`")
    train.add_argument("--model", required=True, help="the network to train; see `kdseg list models`")
    train.add_argument(
        "--method", default="student", help="see `kdseg list methods` (default: student, no distillation)"
    )
    train.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="hyper-parameters of the method")
    train.add_argument("--teacher", metavar="RUN|FILE", help="id or folder of the teacher's run, or a checkpoint")
    train.add_argument("--teacher-model", help="the architecture of a teacher checkpoint")
    train.add_argument("--weights", help="file with the initial backbone weights (default: none, from scratch)")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--amp", action="store_true", help="mixed precision (needs a GPU)")
    train.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="e.g. optim.lr=0.01")
    train.add_argument(
        "--allow-off-protocol", action="store_true", help="allow another effective batch; marks the record"
    )
    train.add_argument(
        "--resume", action=argparse.BooleanOptionalAction, default=True, help="go on from the newest resume file"
    )
    _execution(train)

    sweep = command("sweep", "run a sweep here, in several processes", "kdseg sweep slurm/sweeps/tiny.yaml --jobs 2")
    sweep.add_argument("sweep", type=Path, help="a sweep file, see slurm/sweeps/")
    sweep.add_argument("--jobs", type=int, default=1, help="jobs at the same time (default 1)")
    sweep.add_argument("--cohort", type=int, default=64, help="most runs that train together (1: each alone)")
    _execution(sweep)

    status = command("status", "what the runs of a sweep are at", "kdseg status demo --work-dir work_dirs/demo")
    status.add_argument("sweep", nargs="?", help="name of a started sweep (default: all)")
    status.add_argument("--format", choices=("table", "json"), default="table")
    _store(status)

    tables = command("tables", "mIoU tables from records", "kdseg tables --work-dir work_dirs/demo --format md")
    tables.add_argument("--format", default="md,csv,terminal", help="of md, csv, terminal (default: all)")
    tables.add_argument("--out", type=Path, help="where to write (default: tables/ in the work directory)")
    _store(tables)

    figures = command("figures", "figures from records", "kdseg figures --fig 6 --work-dir work_dirs/demo")
    figures.add_argument("--fig", choices=("6",), default="6", help="6: mIoU against hyper-parameters")
    figures.add_argument("--out", type=Path, help="where to write (default: figures/ in the work directory)")
    _store(figures)

    listing = command("list", "methods, models, datasets, protocols, sweeps", "kdseg list methods")
    listing.set_defaults(handler="list_names")
    listing.add_argument("kind", choices=("methods", "models", "datasets", "protocols", "sweeps"))

    show = command("show", "all about one method, model, dataset or protocol", "kdseg show heteroakd")
    show.add_argument("name")

    clean = command("clean", "remove what finished runs no longer need", "kdseg clean --work-dir work_dirs/demo --yes")
    clean.add_argument("--yes", action="store_true", help="really remove (default: only say what)")
    _store(clean)

    analyze = command("analyze", "measure networks and write the facts about them", "kdseg analyze networks")
    analyze.add_argument("what", choices=("networks",))
    return root


def _store(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--work-dir", type=Path, default=WORK_DIR, help=f"where runs are kept (default {WORK_DIR})")


def _execution(sub: argparse.ArgumentParser) -> None:
    _store(sub)
    sub.add_argument("--data-root", type=Path, help="folder of a dataset that has files")
    sub.add_argument("--weights-dir", type=Path, help="folder of weight files (default: $KDSEG_WEIGHTS)")
    sub.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    sub.add_argument("--threads", type=int, default=1, help="torch threads of a process (default 1)")
    sub.add_argument("--workers", type=int, default=0, help="data-loading processes of a job (default 0)")
    sub.add_argument("--deterministic", action="store_true", help="only deterministic GPU operations")
    sub.add_argument(
        "--checkpoint-interval", type=int, default=100, metavar="N", help="iterations between resume files"
    )


if __name__ == "__main__":
    sys.exit(main())
