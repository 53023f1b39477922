"""The command line `kdseg`: what can be typed. What it does is in the modules beside it, imported after parsing."""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from pathlib import Path
from typing import Any

from benchmark.core.errors import KdsegError

WORK_DIR = Path("work_dirs")
COHORT = 16
MODULES = {
    "train": "train",
    "clean": "train",
    "plan": "plan",
    "sweep": "sweep",
    "submit": "sweep",
    "retry": "sweep",
    "status": "status",
    "logs": "status",
    "cancel": "status",
    "tables": "tables",
    "figures": "tables",
    "report": "tables",
    "compare": "tables",
    "collect": "tables",
    "records": "tables",
    "export": "deploy",
    "eval": "deploy",
    "predict": "deploy",
    "list": "list",
    "show": "list",
    "doctor": "list",
    "analyze": "analyze",
    "new-baseline": "new_baseline",
    "import-checkpoint": "deploy",
    "data": "data",
}
"""The module of this package that holds each command."""


def main(argv: list[str] | None = None) -> int:
    """Parse, run, and turn every mistake of the user's into one line; `--debug` shows the traceback."""
    arguments = parser().parse_args(argv)
    try:
        return getattr(importlib.import_module(f"benchmark.cli.{arguments.module}"), arguments.function)(arguments)
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
            name,
            help=about,
            description=about,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
        sub.set_defaults(module=MODULES[name], function=name.replace("-", "_"))
        return sub

    train = command(
        "train",
        "train one run: a student with a method, or alone",
        "kdseg train --dataset drawn --protocol demo --model deeplabv3_mbv2 --method student --seed 0",
    )
    train.add_argument("--dataset", required=True, help="see `kdseg list datasets`")
    train.add_argument("--protocol", required=True, help="see `kdseg list protocols`")
    train.add_argument("--model", required=True, help="the network to train; see `kdseg list models`")
    train.add_argument(
        "--method", default="student", help="see `kdseg list methods` (default: student, no distillation)"
    )
    pairs: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    train.add_argument("--set", metavar="NAME=VALUE", help="hyper-parameters of the method", **pairs)
    train.add_argument("--teacher", metavar="RUN|FILE", help="id or folder of the teacher's run, or a checkpoint")
    train.add_argument("--teacher-model", help="the architecture of a teacher checkpoint")
    train.add_argument("--teacher-miou", type=float, help="published mIoU of the teacher; another one here warns")
    train.add_argument("--weights", help="file with the initial backbone weights (default: none, from scratch)")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--amp", action="store_true", help="mixed precision (needs a GPU)")
    train.add_argument("--cfg-options", metavar="KEY=VALUE", help="e.g. optim.lr=0.01", **pairs)
    train.add_argument(
        "--resume", action=argparse.BooleanOptionalAction, default=True, help="go on from the newest resume file"
    )
    _execution(train)

    sweep = command("sweep", "run a sweep here, in several processes", "kdseg sweep slurm/sweeps/tiny.yaml --jobs 2")
    sweep.add_argument("--jobs", type=positive, default=1, help="jobs at the same time (default 1)")
    _sweep(sweep)

    plan = command("plan", "what a sweep is made of, and what it costs", "kdseg plan slurm/sweeps/cityscapes.yaml")
    plan.add_argument("--format", choices=("table", "json"), default="table")
    _sweep(plan)

    submit = command(
        "submit", "submit a sweep to Slurm and return at once", "kdseg submit slurm/sweeps/tiny.yaml --profile local"
    )
    _launching(submit, profile_required=True)
    submit.add_argument(
        "--only",
        default="",
        metavar="KEY=VALUE,...",
        help="some of the runs, and their teachers: method, student, "
        "teacher, seed, dataset or protocol; a key given twice means either",
    )

    retry = command(
        "retry",
        "submit failed runs again, and students that were cancelled with their teacher",
        "kdseg retry slurm/sweeps/tiny.yaml --failed oom,node --mem-gb 64",
    )
    _launching(retry, profile_required=False)
    retry.add_argument(
        "--failed",
        required=True,
        metavar="CAUSE,...",
        help="of oom, timeout, node, error, cancelled, and diverged: whose record is then moved aside",
    )
    retry.add_argument("--mem-gb", type=float, help="memory of a job, instead of the profile's")
    retry.add_argument("--timeout-min", type=positive, help="time limit of a job, instead of the profile's")

    status = command(
        "status",
        "what the runs of a sweep are at; exit code 0: all done, 1: something needs you, 3: not finished",
        "kdseg status demo --work-dir work_dirs/demo",
    )
    status.add_argument("sweep", nargs="?", help="name of a started sweep (default: all)")
    status.add_argument("--all", action="store_true", help="a line for every run")
    status.add_argument("--watch", action="store_true", help="look again every ten seconds, as long as something runs")
    status.add_argument("--format", choices=("table", "json"), default="table")
    _store(status)

    logs = command("logs", "the end of a run's logs", "kdseg logs 7c1d04a5 --work-dir work_dirs/demo")
    logs.add_argument("run", help="the start of its id, or its folder")
    logs.add_argument("--lines", type=positive, default=40, help="of each file (default 40)")
    _store(logs)

    cancel = command("cancel", "take a sweep's jobs out of the queue", "kdseg cancel demo --work-dir work_dirs/demo")
    cancel.add_argument("sweep", help="name of a submitted sweep")
    _store(cancel)

    tables = command(
        "tables",
        "tables from records, with verdicts on what was published",
        "kdseg tables main ablation --work-dir work_dirs/demo --format md,tex",
    )
    tables.add_argument("name", nargs="*", help="kinds or names of tables (default: all that there are)")
    tables.add_argument(
        "--format", default="md,csv,terminal", help="of md, tex, csv, html, terminal (default: md,csv,terminal)"
    )
    tables.add_argument("--out", type=Path, help="where to write (default: tables/ in the work directory)")
    _store(tables)

    compare = command(
        "compare",
        "two runs or cells, paired per seed and per image",
        "kdseg compare kd heteroakd --work-dir work_dirs/demo",
    )
    for side in ("first", "second"):
        compare.add_argument(
            side,
            help="a run's id, a cell's key (column `cell` of the tables' CSV) or the start of one, or a method's "
            "name where one cell alone has it",
        )
    compare.add_argument("--format", choices=("terminal", "md", "csv", "tex", "html"), default="terminal")
    _store(compare)

    collect = command(
        "collect",
        "all runs as one CSV, with a data dictionary beside it",
        "kdseg collect --work-dir work_dirs/demo --out runs.csv",
    )
    collect.add_argument("--out", type=Path, help="the CSV to write (default: runs.csv in the work directory)")
    _store(collect)

    moving = command(
        "records",
        "records to and from other machines, checked and merged without duplicates",
        "kdseg records export records.tar.gz --work-dir work_dirs/demo",
    )
    moving.set_defaults(function="move_records")
    moving.add_argument("action", choices=("export", "import"))
    moving.add_argument("file", type=Path, help="the archive, .tar.gz")
    moving.add_argument("--students", action="store_true", help="export: the students' weights, too")
    _store(moving)

    figures = command("figures", "figures from records", "kdseg figures --fig 6 --work-dir work_dirs/demo")
    figures.add_argument(
        "--fig",
        nargs="+",
        default=[],
        metavar="NAME",
        help="of 6 (mIoU against hyper-parameters), classes, cost, "
        "curves, cka, panels (default: all for which there are data)",
    )
    figures.add_argument("--out", type=Path, help="where to write (default: figures/ in the work directory)")
    _store(figures)

    report = command(
        "report",
        "one HTML file: verdict, tables, figures, holes, provenance, reproducibility card",
        "kdseg report --work-dir work_dirs/demo --output report.html",
    )
    report.add_argument("--output", type=Path, help="file to write (default: report.html in the work directory)")
    _store(report)

    listing = command("list", "methods, models, datasets, protocols, sweeps", "kdseg list methods")
    listing.set_defaults(function="list_names")
    listing.add_argument("kind", choices=("methods", "models", "datasets", "protocols", "sweeps"))

    show = command("show", "all about one method, model, dataset or protocol", "kdseg show heteroakd")
    show.add_argument("--flavour", choices=["mmseg", "cirkd"], default="mmseg", help="of a network")
    show.add_argument("--classes", type=int, help="measure a network for so many classes")
    show.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="measure a network at this size")
    show.add_argument("name")

    clean = command("clean", "remove what finished runs no longer need", "kdseg clean --work-dir work_dirs/demo --yes")
    clean.add_argument("--yes", action="store_true", help="really remove (default: only say what)")
    _store(clean)

    export = command(
        "export",
        "a finished student as plain mmsegmentation files, a config and a checkpoint",
        "kdseg export 7c1d04a5c05bd3f1 --work-dir work_dirs/demo --out exported",
    )
    export.add_argument("run", help="id or folder of a finished run")
    export.add_argument("--out", type=Path, required=True, help="folder to write to")
    export.add_argument("--best", action="store_true", help="the weights of the best validation, not the last ones")
    _store(export)

    score = command(
        "eval",
        "score a checkpoint: an exported student, a run's, or any of mmsegmentation",
        "kdseg eval exported --dataset drawn",
    )
    score.set_defaults(function="score")
    score.add_argument("--dataset", help="see `kdseg list datasets` (default: the one that the student was trained on)")
    score.add_argument("--split", choices=("train", "val"), default="val")
    score.add_argument("--data-root", type=Path, help="folder of a dataset that has files")
    score.add_argument("--format", choices=("table", "json"), default="table")
    _network(score)

    imported = command(
        "import-checkpoint",
        "turn another codebase's checkpoint into ours",
        "kdseg import-checkpoint deeplabv3_resnet101_citys_best_model.pth --arch deeplabv3_r101 --flavour cirkd "
        "--out teacher.pth",
    )
    imported.add_argument("file", type=Path, help="a whole network, or an ImageNet backbone")
    imported.add_argument("--arch", required=True, help="the network it is of; see `kdseg list models`")
    imported.add_argument("--flavour", choices=["mmseg", "cirkd"], default="mmseg", help="whose form of the network")
    imported.add_argument("--classes", type=int, help="refuse another number (default: as the file has)")
    imported.add_argument("--out", type=Path, required=True, help="file to write")

    predict = command(
        "predict",
        "write the predicted classes of a folder of images as PNGs",
        "kdseg predict exported --images DIR --out predicted --format palette",
    )
    predict.add_argument("--images", type=Path, required=True, help="folder of images; those in folders below it too")
    predict.add_argument("--out", type=Path, required=True, help="folder to write to, under the images' names")
    predict.add_argument(
        "--format",
        choices=("labels", "palette", "cityscapes"),
        default="labels",
        help="classes 0, 1, ... as grey values (default); the same with colours, as VOC's server wants them; "
        "Cityscapes' labelIds, as its server wants them",
    )
    predict.add_argument("--dataset", help="whose classes and colours they are, if the checkpoint does not say")
    _network(predict)

    analyze = command(
        "analyze",
        "what figures need networks for, written as data files",
        "kdseg analyze cka --work-dir work_dirs/demo",
    )
    analyze.add_argument(
        "what",
        choices=("cka", "panels", "networks"),
        help="cka: how alike students and teachers see images; panels: "
        "their predictions side by side, on images that a rule chooses; networks: measure every network, for "
        "networks.json",
    )
    analyze.add_argument("--dataset", help="whose runs (default: the only one there is)")
    analyze.add_argument("--data-root", type=Path, help="folder of a dataset that has files")
    analyze.add_argument("--methods", nargs="+", default=[], metavar="NAME", help="only these, and the student alone")
    analyze.add_argument(
        "--teacher",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="teacher checkpoints that are no longer where they were",
    )
    _store(analyze)
    _device(analyze)

    author = command("new-baseline", "write a new method's file, ready to edit", "kdseg new-baseline my_kd")
    author.add_argument("name", help="of the file, the method and its table row, in lower case")
    author.add_argument("--title", help="its name in tables (default: the name in capitals)")

    files = command(
        "data",
        "check a dataset's files, or make those that its download lacks",
        "kdseg data check cityscapes --data-root DIR",
    )
    files.add_argument(
        "action",
        choices=("check", "prepare"),
        help="check: read every file and name each problem, exit code 1 if "
        "there is one; prepare: Cityscapes' labelTrainIds, VOC's SegmentationClassAug and trainaug.txt",
    )
    files.add_argument("name", help="see `kdseg list datasets`")
    files.add_argument("--data-root", "--root", type=Path, required=True, help="folder of the dataset")
    files.add_argument("--sbd", type=Path, help="prepare voc: folder of SBD (default: looked for beside VOC2012)")
    files.add_argument("--checkpoint", type=Path, help="check: a network that must tell as many classes apart")
    files.add_argument("--workers", type=positive, help="files at the same time (default: one per core)")

    doctor = command(
        "doctor",
        "what this machine can do, and how to mend what is missing",
        "kdseg doctor --data-root camvid=DIR --weights-dir DIR",
    )
    doctor.add_argument(
        "--data-root", nargs="+", action="extend", default=[], metavar="NAME=DIR", help="folders of datasets with files"
    )
    doctor.add_argument("--weights-dir", type=Path, help="folder of weight files (default: $KDSEG_WEIGHTS)")
    doctor.add_argument("--profile", help="look at a cluster too, with a small job: its profile")
    doctor.add_argument("--format", choices=("table", "json"), default="table")
    _store(doctor)
    return root


def _store(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--work-dir", type=Path, default=WORK_DIR, help=f"where runs are kept (default {WORK_DIR})")


def _launching(sub: argparse.ArgumentParser, profile_required: bool) -> None:
    _sweep(sub)
    sub.add_argument(
        "--profile",
        required=profile_required,
        help="a cluster's, of slurm/profiles/ or a file of yours"
        + ("" if profile_required else " (default: the one that the sweep was last submitted with)"),
    )
    sub.add_argument("--dry-run", action="store_true", help="show what would be submitted, and ask Slurm about it")
    sub.add_argument("--max-parallel", type=positive, help="most jobs at the same time (default: the profile's)")


def _sweep(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("sweep", help="a sweep file, or the name of one in slurm/sweeps/")
    sub.add_argument(
        "--cohort",
        type=positive,
        default=COHORT,
        help=f"most runs that train together (default {COHORT})",
    )
    _execution(sub)


def _network(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("checkpoint", type=Path, help="a checkpoint, a run directory, or a folder that export wrote")
    sub.add_argument(
        "--config",
        type=Path,
        help="its mmseg config; it is Python and is executed (default: what lies beside the "
        "checkpoint, read as data and never executed)",
    )
    sub.add_argument("--model", help="instead of a config: one of our networks, with --protocol")
    sub.add_argument("--protocol", help="with --model: the protocol that says how pixels are normalised")
    _device(sub)


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


def _execution(sub: argparse.ArgumentParser) -> None:
    _store(sub)
    sub.add_argument("--data-root", type=Path, help="folder of a dataset that has files")
    sub.add_argument("--weights-dir", type=Path, help="folder of weight files (default: $KDSEG_WEIGHTS)")
    _device(sub)
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


def _device(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    sub.add_argument("--threads", type=positive, default=1, help="torch threads of a process (default 1)")


if __name__ == "__main__":
    sys.exit(main())
