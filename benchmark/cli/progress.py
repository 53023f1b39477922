"""A progress bar with ETA over the runs of a sweep, read from their heartbeats."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from benchmark.records.record import State
from benchmark.records.run_directory import RunDirectory, Status
from benchmark.spec.networks import network
from benchmark.spec.runs import Manifest, Run, run_recipe

PLAIN_S = 30.0
"""Seconds between two lines where the output is no terminal."""


class Progress:
    """Shows how far a sweep is. Work is counted in iterations times the network's FLOPs, so the ETA is fair."""

    def __init__(self, manifest: Manifest, work_dir: Path) -> None:
        self.runs = {run.id: run for run in manifest.runs}
        self.work_dir = work_dir
        self.iterations = {run.id: iterations(run) for run in manifest.runs}
        self.total = sum(self._work(id_, count) for id_, count in self.iterations.items())
        self.console = Console()
        self.bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self.console,
            speed_estimate_period=120,
        )
        self.started, self.said, self.at_start = time.monotonic(), time.monotonic(), 0.0

    def __enter__(self) -> Self:
        self.at_start = self._state()[0]
        self.task = self.bar.add_task("", total=self.total, completed=self.at_start)  # type: ignore[arg-type] # any number
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.update()
        if self.console.is_terminal:
            self.bar.stop()
        else:
            self._say()

    def update(self) -> None:
        """Read the heartbeats and redraw (or, where the output is no terminal, say a line now and then)."""
        done, text = self._state()
        self.bar.update(self.task, completed=done, description=text)
        if not self.console.is_terminal and time.monotonic() - self.said > PLAIN_S:
            self._say()

    def _say(self) -> None:
        self.said = time.monotonic()
        done, text = self._state()
        share, gained = done / self.total, done - self.at_start
        elapsed = self.said - self.started
        eta = f", ETA {elapsed * (self.total - done) / gained:.0f} s" if gained > 0 and done < self.total else ""
        print(f"{share:4.0%}  {text}  {elapsed:.0f} s{eta}", flush=True)

    def _state(self) -> tuple[float, str]:
        work, counts = 0.0, {"done": 0, "running": 0}
        for id_ in self.runs:
            status = RunDirectory(self.work_dir, id_).status()
            work += self._work(id_, self._seen(id_, status))
            if status and status.state in (State.DONE, State.DIVERGED):
                counts["done"] += 1
            elif status and status.state is State.RUNNING:
                counts["running"] += 1
        return work, f"{counts['done']}/{len(self.runs)} runs done, {counts['running']} training"

    def _seen(self, id_: str, status: Status | None) -> int:
        if status is None:
            return 0
        return self.iterations[id_] if status.state in (State.DONE, State.DIVERGED) else status.iteration

    def _work(self, id_: str, count: int) -> float:
        return count * network(self.runs[id_].model).gflops


def iterations(run: Run) -> int:
    """How many iterations a run is to train."""
    return run_recipe(run).data.iterations
