"""What the phases of a cohort take, and each run's part of it, without making the host wait for the device."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

LATELY = 50
"""So many of the last iterations tell how fast training is now."""


class _Moment:
    """Now; on CUDA when the device gets to this place of its queue."""

    def __init__(self, device: torch.device) -> None:
        self.time = time.perf_counter()
        self.event = torch.cuda.Event(enable_timing=True) if device.type == "cuda" else None
        if self.event is not None:
            self.event.record()

    def passed(self) -> bool:
        return self.event is None or self.event.query()

    def seconds_to(self, end: _Moment) -> float:
        if self.event is not None and end.event is not None:
            return self.event.elapsed_time(end.event) / 1000
        return end.time - self.time


class Stopwatch:
    """Takes the time of one phase again and again.

    On CUDA between two events in the device's queue, read after it has passed them: the host runs on ahead.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._taken: list[float] = []
        self._running: deque[tuple[_Moment, _Moment]] = deque()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time what happens within."""
        start = _Moment(self.device)
        try:
            yield
        finally:
            self._running.append((start, _Moment(self.device)))

    def seconds(self) -> list[float]:
        """All times so far, but for those at the end that the device is still at."""
        while self._running and self._running[0][1].passed():
            start, end = self._running.popleft()
            self._taken.append(start.seconds_to(end))
        return self._taken

    def lately(self) -> float:
        """The median of the last times (0 before the first)."""
        last = self.seconds()[-LATELY:]
        return statistics.median(last) if last else 0.0

    def median(self) -> float:
        """The median of all times (0 before the first)."""
        return statistics.median(self.seconds()) if self.seconds() else 0.0


class SharedStopwatch(Stopwatch):
    """A stopwatch of a phase that some runs share; it notes which."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.sharers: list[Collection[str]] = []

    @contextmanager
    def shared(self, runs: Collection[str]) -> Iterator[None]:
        """Time what happens within, for the runs with these ids."""
        with self.running():
            yield
        self.sharers.append(runs)

    def parts(self, run: str) -> tuple[float, float]:
        """Seconds of a run: its even parts of what it shared, and the whole of it."""
        taken = zip(self.seconds(), self.sharers, strict=False)  # the last may still be running
        mine = [(seconds, len(runs)) for seconds, runs in taken if run in runs]
        return sum(seconds / count for seconds, count in mine), sum(seconds for seconds, _ in mine)


@dataclass(frozen=True)
class Spent:
    """Seconds of a run over all attempts: its jobs' wall time, its part of it, and what it would have taken alone."""

    wall_s: float = 0.0
    share_s: float = 0.0
    single_s: float = 0.0


class Timing:
    """A cohort's stopwatches.

    Attributes:
        data, teacher, validation: what runs share; of validation the loading of its pictures.
    """

    def __init__(self, device: torch.device) -> None:
        self.began = time.perf_counter()
        self.data, self.teacher, self.validation = (SharedStopwatch(device) for _ in range(3))

    def spent(self, run: str, own: dict[str, float], earlier: Spent) -> Spent:
        """What a run has spent until now.

        Its share is its own time, its parts of what it shared, and an even part of the rest (building, saving); all
        runs' shares add up to the wall time. Alone it would have had the whole of what it shared.

        Args:
            run: its id.
            own: seconds of every run of the cohort that no other shares, by id.
            earlier: of earlier attempts.
        """
        wall = time.perf_counter() - self.began
        watches = self.data, self.teacher, self.validation
        rest = wall - sum(own.values()) - sum(sum(watch.seconds()) for watch in watches)
        parts, wholes = zip(*(watch.parts(run) for watch in watches), strict=True)
        alone = own[run] + max(rest, 0.0) / len(own)
        return Spent(
            wall_s=earlier.wall_s + wall,
            share_s=earlier.share_s + alone + sum(parts),
            single_s=earlier.single_s + alone + sum(wholes),
        )
