"""What every method's loss alone costs at the shapes of the papers: time, memory, and what it adds to the training.

`python -m benchmark.bench.losses`, part of `make bench`: JSON in results/bench, and a table. Each method is measured in
a process of its own, forward and backward pass, on random taps of two pairs at a Cityscapes crop.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmark.bench.base import OUT
from benchmark.bench.plain_losses import plain_relation_kl
from benchmark.core.environment import code_version, package_versions, processor
from benchmark.core.files import make_folder, write_json
from benchmark.method import IGNORE
from benchmark.method.blocks import added
from benchmark.method.recipes import make_method
from benchmark.method.registry import method_class, method_files
from benchmark.spec.networks import TapShape

CLASSES = 19
ENOUGH_S = 20.0
"""No further round begins after so many seconds."""

Taps = dict[str, tuple[int, int]]  # name -> channels, stride

NETWORKS: dict[str, Taps] = {
    "deeplabv3_r101": {
        "c1": (256, 4),
        "c2": (512, 8),
        "c3": (1024, 8),
        "c4": (2048, 8),
        "pre_classifier": (256, 8),
        "aux_logits": (CLASSES, 8),
        "logits": (CLASSES, 8),
    },
    "deeplabv3_r18": {
        "c1": (64, 4),
        "c2": (128, 8),
        "c3": (256, 8),
        "c4": (512, 8),
        "pre_classifier": (128, 8),
        "aux_logits": (CLASSES, 8),
        "logits": (CLASSES, 8),
    },
    "segformer_mit_b4": {
        "c1": (64, 4),
        "c2": (128, 8),
        "c3": (320, 16),
        "c4": (512, 32),
        "pre_classifier": (768, 4),
        "logits": (CLASSES, 4),
    },
    "deeplabv3_mbv2": {
        "c1": (24, 4),
        "c2": (32, 8),
        "c3": (96, 8),
        "c4": (320, 8),
        "pre_classifier": (128, 8),
        "logits": (CLASSES, 8),
    },
}
PAIRS = (("deeplabv3_r101", "deeplabv3_r18"), ("segformer_mit_b4", "deeplabv3_mbv2"))
"""Teacher and student, in the CIRKD codebase's widths."""

PARTS_OF_CIRKD = {
    "cirkd, mini-batch": {"pixel_weight": 0.0, "region_weight": 0.0},
    "cirkd, memories": {"minibatch_weight": 0.0},
}


def main(argv: list[str]) -> int:
    """Measure all methods, print, and write `losses.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.bench.losses", description=__doc__)
    parser.add_argument("--methods", nargs="*", help="only these")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--crop", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args(argv)
    names = arguments.methods or [name for name in method_files() if method_class(name).needs_teacher]
    tasks: list[tuple[str, str, dict[str, Any], bool]] = [(name, name, {}, False) for name in names]
    if "cirkd" in names:
        for label, hyper in PARTS_OF_CIRKD.items():
            tasks += [(label, "cirkd", hyper, False), (f"{label}, plain form", "cirkd", hyper, True)]
    rows = []
    for teacher, student in PAIRS:
        for label, name, hyper, plain in tasks:
            task = (name, hyper, plain, teacher, student, tuple(arguments.crop), arguments.batch)
            # A process of its own: the peak of memory is the process', and says nothing after another method.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                measured = pool.apply(measure, (*task, arguments.rounds, arguments.device))
            rows.append({"method": label, "teacher": teacher, "student": student, **measured})
            print(f"{teacher} → {student}: {label}: {measured['seconds']:.2f} s", file=sys.stderr)
    commit, dirty = code_version()
    machine = {"processor": processor(), "device": arguments.device, "threads": 1, "versions": package_versions()}
    setting = {"crop": list(arguments.crop), "batch": arguments.batch, "classes": CLASSES}
    make_folder(arguments.out)
    write_json(
        arguments.out / "losses.json",
        {"commit": commit, "dirty": dirty, "machine": machine, "setting": setting, "rows": rows},
    )
    _print(rows)
    print(f"bench: {arguments.out / 'losses.json'}")
    return 0


def measure(
    name: str,
    hyper: dict[str, Any],
    plain: bool,
    teacher: str,
    student: str,
    crop: tuple[int, int],
    batch: int,
    rounds: int,
    device: str,
) -> dict[str, float]:
    """Forward and backward pass of one method's loss, in this process.

    Returns:
        `seconds` (median), `peak_mb` above what networks' taps and the method's state take, `parameters` trained
        besides the student's, `state_mb` of parameters and buffers.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    method = make_method(name, hyper)
    method.attach(*(_shapes(NETWORKS[network]) for network in (student, teacher)))
    method.to(device)
    student_taps, teacher_taps = (
        _taps(NETWORKS[network], method.taps, crop, batch, device) for network in (student, teacher)
    )
    for x in student_taps.values():
        x.requires_grad_()
    target = torch.randint(0, CLASSES, (batch, crop[0] // 32, crop[1] // 32))
    target = target.repeat_interleave(32, 1).repeat_interleave(32, 2).to(device)
    target[:, :32] = IGNORE
    before, seconds = _memory_mb(device), []
    with patch("baselines.cirkd.relation_kl", plain_relation_kl) if plain else patch.dict({}):
        for step in range(rounds):
            method.zero_grad()
            for x in student_taps.values():
                x.grad = None
            start = _clock(device)
            added(method.losses(student_taps, teacher_taps, target, step).values()).backward()
            seconds.append(_clock(device) - start)
            if sum(seconds) > ENOUGH_S:
                break
    state = [*method.parameters(), *method.buffers()]
    return {
        "seconds": statistics.median(seconds),
        "rounds": len(seconds),
        "peak_mb": _peak_mb(device) - before,
        "parameters": sum(p.numel() for p in method.parameters() if p.requires_grad),
        "state_mb": sum(x.numel() * x.element_size() for x in state) / 2**20,
    }


def _shapes(taps: Taps) -> dict[str, TapShape]:
    return {name: TapShape(channels=channels, stride=stride) for name, (channels, stride) in taps.items()}


def _taps(taps: Taps, names: tuple[str, ...], crop: tuple[int, int], batch: int, device: str) -> dict[str, Tensor]:
    tensors = {}
    for name in names:
        if name in taps:
            channels, stride = taps[name]
            x = torch.randn(batch, channels, crop[0] // stride, crop[1] // stride, device=device)
            tensors[name] = x if name.endswith("logits") else x.relu()
    return tensors


def _clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _memory_mb(device: str) -> float:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _peak_mb(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _print(rows: list[dict[str, Any]]) -> None:
    for teacher, student in PAIRS:
        table = Table(title=f"{teacher} → {student}: loss alone, forward and backward")
        table.add_column("method")
        for column in ("seconds", "peak MB", "extra parameters", "state MB"):
            table.add_column(column, justify="right")
        for row in rows:
            if (row["teacher"], row["student"]) == (teacher, student):
                table.add_row(
                    row["method"],
                    f"{row['seconds']:.3g}",
                    f"{row['peak_mb']:,.0f}",
                    f"{row['parameters']:,}",
                    f"{row['state_mb']:,.0f}",
                )
        Console().print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
