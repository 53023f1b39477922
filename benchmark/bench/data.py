"""How many pictures one loading process gives per second, and which step takes its time: `data.json`.

`python -m benchmark.bench.data`, part of `make bench`. On pictures that it draws itself at Cityscapes' size and in its
layout; times are of the processor, so that other processes on the machine change them little. Files are in memory.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from benchmark.bench.base import OUT, print_table, write_report
from benchmark.core.environment import processor
from benchmark.data.datasets import SeededDataset, train_dataset
from benchmark.data.loading import read_image, read_labels
from benchmark.runtime.randomness import stream
from benchmark.spec import definitions
from benchmark.spec.definitions import Dataset
from benchmark.spec.networks import Family

PROTOCOLS = ("cirkd", "mmseg")
GPUS, ITERATIONS_PER_SECOND, BATCH = 2, 3, 16
NEEDED = GPUS * ITERATIONS_PER_SECOND * BATCH
"""Pictures per second that loading must give where each GPU trains a job of its own."""


def draw(definition: Dataset, root: Path, count: int, size: tuple[int, int]) -> None:
    """Write `count` training samples: smooth shapes with a camera's noise, and labels in patches, as PNG files.

    A frame takes 2.3 MB and its labels 30 KB or so at full size, as Cityscapes' own do.
    """
    height, width = size
    layout = definition.splits["train"]
    for index in range(count):
        random = np.random.default_rng(index)
        stem = f"aachen/aachen_{index:06d}_000019"
        cells = random.integers(0, len(definition.classes), (16, 32), np.uint8)
        labels = Image.fromarray(cells).resize((width, height), Image.Resampling.NEAREST)
        colours = Image.fromarray(random.integers(0, 256, (16, 32, 3), np.uint8))
        smooth = np.asarray(colours.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        picture = np.clip(smooth + random.normal(0, 1.5, (height, width, 1)), 0, 255).astype(np.uint8)
        for folder, suffix, image in (
            (layout.images, definition.image_suffix, Image.fromarray(picture)),
            (layout.labels, definition.label_suffix, labels),
        ):
            path = root / folder / f"{stem}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)


def measure(data: SeededDataset, rounds: int) -> dict[str, float]:
    """Milliseconds of each step for a sample, median over `rounds` passes of the mean over all samples.

    `decode image` and `decode label` are parts of the loading step, measured apart; `check label` is its rest.
    """
    passes: list[dict[str, float]] = []
    for turn in range(rounds):
        total: dict[str, float] = {}

        def spent(name: str, start: float, total: dict[str, float] = total) -> float:
            now = time.process_time()
            total[name] = total.get(name, 0.0) + 1000 * (now - start) / len(data)
            return now

        for index in range(len(data)):
            results = data.get_data_info(index)
            start = time.process_time()
            read_image(Path(results["img_path"]))
            start = spent("decode image", start)
            read_labels(Path(results["seg_map_path"]))
            start = spent("decode label", start)
            with stream(data.seed, "sample", turn * len(data) + index, index):
                for transform in data.pipeline.transforms:
                    results = transform(results)
                    start = spent(type(transform).__name__, start)
        rest = total.pop("LoadSample") - total["decode image"] - total["decode label"]
        passes.append({"check label": max(0.0, rest)} | total)
    return {name: median(one[name] for one in passes) for name in passes[0]}


def main(argv: list[str]) -> int:
    """Measure, print, and write `data.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.bench.data", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 2048), metavar=("H", "W"))
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    definition, size = definitions.dataset("cityscapes"), tuple(arguments.size)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw(definition, root, arguments.pictures, size)
        file_mb = sum(path.stat().st_size for path in root.glob("*/*/*/*.png")) / arguments.pictures / 2**20
        protocols = {name: _measured(definition, name, root, arguments.rounds) for name in PROTOCOLS}
    steps = dict.fromkeys(step for each in protocols.values() for step in each["steps_ms"])
    rows = [[step, *(f"{each['steps_ms'].get(step, 0):.1f}" for each in protocols.values())] for step in steps]
    for title, key in (("pictures/s of a worker", "pictures_per_second"), ("workers needed", "workers_needed")):
        rows.append([title, *(f"{each[key]:.1f}" for each in protocols.values())])
    print_table(f"ms per picture of {size[0]}×{size[1]}, {processor()}, 1 thread", ("step", *protocols), rows)
    setting = {"size": list(size), "pictures": arguments.pictures, "rounds": arguments.rounds, "file_mb": file_mb}
    write_report(arguments.out, "data", setting, {"needed_per_second": NEEDED, "protocols": protocols})
    return 0


def _measured(definition: Dataset, protocol: str, root: Path, rounds: int) -> dict[str, Any]:
    recipe = definitions.protocol(protocol).recipe(Family.CNN, definition.name).data
    steps = measure(train_dataset(definition, recipe, root, 0), rounds)
    whole = sum(steps.values()) / 1000
    return {
        "steps_ms": steps,
        "bottleneck": max(steps, key=lambda step: steps[step]),
        "pictures_per_second": 1 / whole,
        "workers_needed": NEEDED * whole,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
