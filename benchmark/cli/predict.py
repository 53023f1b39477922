"""`kdseg predict`: the predicted classes of a folder of images as PNGs."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from benchmark.cli.input import add_checkpoint, checkpoint
from benchmark.cli.options import Commands, add_command, device_of
from benchmark.cli.output import say_where


def add_commands(commands: Commands) -> None:
    """Declare `kdseg predict`."""
    sub = add_command(
        commands,
        predict,
        "predict",
        "write the predicted classes of a folder of images as PNGs",
        "kdseg predict exported --images DIR --out predicted --format palette",
    )
    sub.add_argument("--images", type=Path, required=True, help="folder of images; those in folders below it too")
    sub.add_argument("--out", type=Path, required=True, help="folder to write to, under the images' names")
    sub.add_argument(
        "--format",
        choices=("labels", "palette", "cityscapes"),
        default="labels",
        help="classes 0, 1, ... as grey values (default); the same with colours, as VOC's server wants them; "
        "Cityscapes' labelIds, as its server wants them",
    )
    sub.add_argument("--dataset", help="whose classes and colours they are, if the checkpoint does not say")
    add_checkpoint(sub)


def predict(arguments: Namespace) -> int:
    """`kdseg predict`: a PNG for every image of a folder; 1 if an image could not be read."""
    from benchmark.deploy.predict import predict_folder

    dataset, loaded = checkpoint(arguments)
    palette = dataset.palette if dataset else loaded.palette
    written, faults = predict_folder(
        loaded, arguments.images, arguments.out, arguments.format, palette, device_of(arguments)
    )
    for fault in faults:
        print(f"left out: {fault}", file=sys.stderr)
    print(f"{written} images predicted" + (f", {len(faults)} left out" if faults else ""))
    say_where({"predictions": [arguments.out]})
    return 1 if faults else 0
