"""`kdseg import-checkpoint`: another codebase's checkpoint under our names."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from benchmark.cli.options import Commands, add_command


def add_commands(commands: Commands) -> None:
    """Declare `kdseg import-checkpoint`."""
    sub = add_command(
        commands,
        import_checkpoint,
        "import-checkpoint",
        "turn another codebase's checkpoint into ours",
        "kdseg import-checkpoint deeplabv3_resnet101_citys_best_model.pth --arch deeplabv3_r101 --flavour cirkd "
        "--out teacher.pth",
    )
    sub.add_argument("file", type=Path, help="a whole network, or an ImageNet backbone")
    sub.add_argument("--arch", required=True, help="the network it is of; see `kdseg list models`")
    sub.add_argument("--flavour", choices=["mmseg", "cirkd"], default="mmseg", help="whose form of the network")
    sub.add_argument("--classes", type=int, help="refuse another number (default: as the file has)")
    sub.add_argument("--out", type=Path, required=True, help="file to write")


def import_checkpoint(arguments: Namespace) -> int:
    """`kdseg import-checkpoint`: a checkpoint of another codebase under our names, strictly."""
    from benchmark.models import checkpoints
    from benchmark.models.convert import import_checkpoint as read
    from benchmark.spec.networks import flavoured, network

    name = network(flavoured(arguments.arch, arguments.flavour)).name
    state, meta = read(arguments.file, name, arguments.classes)
    checkpoints.save(arguments.out, {"meta": meta, "state_dict": state})
    part = "backbone" if "part" in meta else f"network for {meta['classes']} classes"
    print(f"{arguments.out}: {name}, {part}, {len(state)} tensors; source sha256 {meta['source_sha256']}")
    use = "--weights or a sweep's weights:" if "part" in meta else f"--teacher FILE --teacher-model {name}"
    print(f"use it as {use}")
    return 0
