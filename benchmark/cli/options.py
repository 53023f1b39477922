"""Options that several commands share: how they are declared, and what they say once they are parsed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from benchmark.spec.runs import Execution

WORK_DIR = Path("work_dirs")
COHORT = 16
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What commands are added to."""


def add_command(
    commands: Commands, action: Callable[[argparse.Namespace], int], name: str, about: str, example: str
) -> argparse.ArgumentParser:
    """Declare a command; `action` carries it out and returns the exit code. Its help ends with the example."""
    sub = commands.add_parser(
        name,
        help=about,
        description=about,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
    sub.set_defaults(function=action)
    return sub


def add_work_dir(sub: argparse.ArgumentParser) -> None:
    """Declare where runs are kept."""
    sub.add_argument("--work-dir", type=Path, default=WORK_DIR, help=f"where runs are kept (default {WORK_DIR})")


def add_device(sub: argparse.ArgumentParser) -> None:
    """Declare what to compute on; `device_of` reads it."""
    sub.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    sub.add_argument("--threads", type=positive, default=1, help="torch threads of a process (default 1)")


def add_sweep(sub: argparse.ArgumentParser) -> None:
    """Declare which sweep is meant, and how its jobs are carried out."""
    sub.add_argument("sweep", help="a sweep file, or the name of one in slurm/sweeps/")
    sub.add_argument(
        "--cohort",
        type=positive,
        default=COHORT,
        help=f"most runs that train together (default {COHORT})",
    )
    add_execution(sub)


def add_execution(sub: argparse.ArgumentParser) -> None:
    """Declare how jobs are carried out; `execution` and `select_on` read it."""
    add_work_dir(sub)
    sub.add_argument("--data-root", type=Path, help="folder of a dataset that has files")
    sub.add_argument("--weights-dir", type=Path, help="folder of weight files (default: $KDSEG_WEIGHTS)")
    add_device(sub)
    sub.add_argument(
        "--workers", type=natural, help="data-loading processes of a job (default 0; on a cluster cpus_per_task - 1)"
    )
    sub.add_argument(
        "--allow-off-protocol", action="store_true", help="allow another effective batch or number of images"
    )
    sub.add_argument("--deterministic", action="store_true", help="prefer deterministic GPU operations")
    sub.add_argument("--stage", type=Path, metavar="DIR", help="copy the dataset to this node-local folder first, once")
    sub.add_argument(
        "--select-on",
        choices=("val", "train-holdout"),
        default="val",
        help="images that validations look at; "
        "train-holdout: a fixed part of train that is then not trained on, to choose hyper-parameters",
    )
    sub.add_argument(
        "--strict-teacher", action="store_true", help="stop if the teacher's mIoU is not the published one"
    )
    sub.add_argument(
        "--wandb", choices=("off", "offline", "online"), default="off", help="a copy of each run for Weights & Biases"
    )
    sub.add_argument(
        "--checkpoint-interval", type=positive, default=100, metavar="N", help="iterations between resume files"
    )


def positive(text: str) -> int:
    """A whole number of at least 1."""
    number = natural(text)
    if number == 0:
        raise ValueError
    return number


def natural(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal():
        raise ValueError
    return int(text)


def execution(arguments: argparse.Namespace) -> Execution:
    """How jobs are carried out, by the options that `train`, `sweep` and `submit` share."""
    from benchmark.spec.runs import Execution

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


def select_on(arguments: argparse.Namespace) -> dict[str, str]:
    """The override that `--select-on` stands for; none for the validation images, so that run ids stay as they are."""
    return {} if arguments.select_on == "val" else {"data.select_on": arguments.select_on}


def device_of(arguments: argparse.Namespace) -> Any:
    """The device that `--device` and `--threads` choose; sets the threads of this process."""
    from benchmark.runtime.device import prepare_process
    from benchmark.spec.runs import Execution, Job

    chosen = Execution(device=arguments.device, threads=arguments.threads)
    return prepare_process(Job(runs=(), work_dir="", execution=chosen))


def sweep_name(text: str) -> str:
    """The name of a sweep, also if its file is named."""
    return Path(text).stem if text.endswith((".yaml", ".yml")) else text
