"""How losses grow with classes, resolution and batch, and beside their plain form: `growth.json`.

`python -m benchmark.bench.growth`, part of `make bench`. Forward and backward pass on random maps at stride 8, each
form at each size in a process of its own, whose peak of memory says what it needs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from baselines import skd
from baselines.afdcd import dense_contrast
from baselines.cirkd import minibatch_relation
from baselines.ifvd import variation_kd
from benchmark.bench.base import OUT, print_table, seconds, write_report
from benchmark.bench.plain_losses import plain_pairwise, plain_relation_kl, plain_variation
from benchmark.core.environment import processor
from benchmark.core.schema import Frozen
from benchmark.method import IGNORE
from benchmark.method.grids import labels_on
from methods.heteroakd import HeteroAKD

STRIDE, CHANNELS = 8, 128
Loss = Callable[[Tensor, Tensor, Tensor, int], Tensor]


class Size(Frozen):
    """Of the problem: classes, side of the square crops in pixels, images."""

    classes: int = 19
    crop: int = 512
    batch: int = 2


def _heteroakd(s: Tensor, t: Tensor, labels: Tensor, classes: int) -> Tensor:
    return HeteroAKD().hakd(s, t, labels, labels != IGNORE)


LOSSES: dict[str, Loss] = {
    "heteroakd": _heteroakd,
    "skd, pair-wise": lambda s, t, labels, classes: skd.pairwise_kd(s, t),
    "ifvd": variation_kd,
    "afdcd, contrast": lambda s, t, labels, classes: dense_contrast(s, t),
    "cirkd, mini-batch": lambda s, t, labels, classes: minibatch_relation(s, t, pool=True),
}
"""What is quadratic in pixels or as large as the logits; the first reads logits, the others features."""

PLAIN = {
    "benchmark.method.blocks.LIMIT": 2**62,
    "baselines.cirkd.relation_kl": plain_relation_kl,
    "baselines.skd.pairwise_kd": plain_pairwise,
    "baselines.ifvd.intra_class_variation": plain_variation,
}
"""What stands in for what, where the plain form is measured."""

SIZES = (Size(), Size(classes=150), Size(crop=1024), Size(batch=16))


def main(argv: list[str]) -> int:
    """Measure, print, and write `growth.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.bench.growth", description=__doc__)
    parser.add_argument("--shrink", type=int, default=1, help="divide crops by this, to try it out")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = []
    for name in LOSSES:
        for size in SIZES:
            size = size.model_copy(update={"crop": size.crop // arguments.shrink})
            row = {"loss": name, **size.model_dump()}
            for form, plain in (("ours", False), ("plain", True)):
                with multiprocessing.get_context("fork").Pool(1) as pool:
                    row[f"{form}_s"], row[f"{form}_mb"] = pool.apply(measure, (name, size, plain))
            rows.append(row)
    shown = [
        [
            f"{row['loss']}, {row['classes']} classes, {row['batch']} × {row['crop']}²",
            f"{row['ours_s']:.3g}",
            f"{row['plain_s']:.3g}",
            f"{row['ours_mb']:,.0f}",
            f"{row['plain_mb']:,.0f}",
        ]
        for row in rows
    ]
    columns = ("loss", "ours s", "plain s", "ours MB", "plain MB")
    print_table(f"forward and backward, {processor()}, 1 thread", columns, shown)
    write_report(arguments.out, "growth", {"stride": STRIDE, "channels": CHANNELS}, {"rows": rows})
    return 0


def measure(name: str, size: Size, plain: bool) -> tuple[float, float]:
    """Seconds of a pass, and the peak of this process in MB above what holds its inputs."""
    random = torch.Generator().manual_seed(0)
    channels = size.classes if name == "heteroakd" else CHANNELS
    shape = (size.batch, channels, size.crop // STRIDE, size.crop // STRIDE)
    student, teacher = (torch.randn(shape, generator=random) for _ in range(2))
    student.requires_grad_()
    blocks = torch.randint(0, size.classes, (size.batch, size.crop // 32, size.crop // 32), generator=random)
    labels = labels_on(blocks.repeat_interleave(32, 1).repeat_interleave(32, 2), shape[2:])
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    before = pages * resource.getpagesize() / 2**20
    with ExitStack() as patches:
        for target, form in PLAIN.items() if plain else ():
            patches.enter_context(patch(target, form))
        took = seconds(lambda: LOSSES[name](student, teacher, labels, size.classes).backward())
    return took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10 - before


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
