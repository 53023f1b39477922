"""Counting the areas of a Cityscapes picture beside mmseg's IoUMetric: `evaluation.json`.

`python -m benchmark.bench.evaluation`, part of `make bench`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import torch
from mmseg.evaluation import IoUMetric

from benchmark.bench.base import OUT, print_table, seconds, write_report
from benchmark.core.environment import processor
from benchmark.method import IGNORE
from benchmark.training.evaluation import count_areas

CLASSES = (19, 150)


def main(argv: list[str]) -> int:
    """Measure, print, and write `evaluation.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.bench.evaluation", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 2048), metavar=("H", "W"))
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    size = tuple(arguments.size)
    measured = {str(classes): measure(classes, size, arguments.rounds) for classes in CLASSES}
    rows = [
        [name, f"{each['ours_s'] * 1e3:.1f}", f"{each['mmseg_s'] * 1e3:.1f}", f"{each['speedup']:.1f}"]
        for name, each in measured.items()
    ]
    title = f"areas of a picture of {size[0]}×{size[1]}, {processor()}, 1 thread"
    print_table(title, ("classes", "ours, ms", "IoUMetric, ms", "times as fast"), rows)
    write_report(arguments.out, "evaluation", {"size": list(size), "rounds": arguments.rounds}, {"classes": measured})
    return 0


def measure(classes: int, size: tuple[int, int], rounds: int) -> dict[str, float]:
    """Medians over alternating rounds, of seconds and of the ratio; the numbers must be equal.

    The labels are blocks of 32×32 pixels, a tenth of them ignored; the prediction differs in 30 % of the pixels.
    """
    random = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, classes, (size[0] // 32, size[1] // 32), generator=random)
    blocks[torch.rand(blocks.shape, generator=random) < 0.1] = IGNORE
    label = blocks.repeat_interleave(32, 0).repeat_interleave(32, 1)
    other = torch.randint(0, classes, label.shape, generator=random)
    wrong = (torch.rand(label.shape, generator=random) < 0.3) | (label == IGNORE)
    prediction = torch.where(wrong, other, label)
    mmseg_areas = torch.stack(IoUMetric.intersect_and_union(prediction, label, classes, IGNORE)).long()
    if not torch.equal(count_areas(prediction, label, classes), mmseg_areas):
        raise AssertionError("our areas are not IoUMetric's")
    ours_s, mmseg_s = [], []
    for _ in range(rounds):
        ours_s.append(seconds(lambda: count_areas(prediction, label, classes)))
        mmseg_s.append(seconds(lambda: IoUMetric.intersect_and_union(prediction, label, classes, IGNORE)))
    ratios = [mmseg / own for own, mmseg in zip(ours_s, mmseg_s, strict=True)]
    return {
        "ours_s": statistics.median(ours_s),
        "mmseg_s": statistics.median(mmseg_s),
        "speedup": statistics.median(ratios),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
