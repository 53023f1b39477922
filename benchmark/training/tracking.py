"""Weights & Biases, where somebody asks for it: a copy of what a run directory holds, sent by a process of its own.

Nothing depends on it. It draws no number of a run's streams, and whatever fails in it is said once and ends it alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from benchmark.core.errors import one_line
from benchmark.records.record import State
from benchmark.spec.runs import Run, Tracking

_log = logging.getLogger(__name__)

PROJECT = "kdseg"
START_S = 30
"""Seconds that wandb's server gets to answer before the run goes on without it."""
LONGEST_TAG = 64


class Tracker:
    """One run's way to wandb; this one leads nowhere."""

    def log(self, line: Mapping[str, float]) -> None:
        """Send a line of `scalars.jsonl`; its `iteration` is wandb's step."""

    def finish(self, state: State, summary: Mapping[str, float] | None = None) -> None:
        """Say how the run ended."""


class WandbTracker(Tracker):
    """A run in wandb: its id is ours, so that a later attempt goes on with it; its group is the cell of the table."""

    def __init__(self, run: Run, folder: Path, mode: Literal["offline", "online"]) -> None:
        self.mode, self.open = mode, True
        self._guarded(lambda: self._begin(run, folder))

    def log(self, line: Mapping[str, float]) -> None:
        """Send a line of `scalars.jsonl`; its `iteration` is wandb's step."""
        values = {key: value for key, value in line.items() if key != "iteration"}
        self._guarded(lambda: self.run.log(values, step=line["iteration"]))

    def finish(self, state: State, summary: Mapping[str, float] | None = None) -> None:
        """Say how the run ended; of an offline run also the command that sends it."""

        def end() -> None:
            self.run.summary.update({"outcome": str(state), **(summary or {})})
            folder = Path(self.run.dir).parent
            self.run.finish(exit_code=0 if state is State.DONE else 1)
            if self.mode == "offline":
                _log.info("wandb sync %s", folder)

        self._guarded(end)
        self.open = False

    def _begin(self, run: Run, folder: Path) -> None:
        try:
            import wandb
        except ImportError:
            raise ImportError("is not installed; pip install wandb") from None
        settings = wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_save_requirements=False,
            init_timeout=START_S,
        )
        pair = f"{run.teacher.model} → {run.model}" if run.teacher else run.model
        tags = [run.dataset, run.protocol, run.model, run.method.name, f"seed {run.seed}", run.precision]
        self.run: Any = wandb.init(
            project=PROJECT,
            id=run.id,
            resume="allow",
            mode=self.mode,
            dir=str(folder),
            reinit="create_new",
            name=f"{run.method.variant}, seed {run.seed}",
            group=f"{run.dataset}/{pair}/{run.method.variant}",
            job_type=run.method.name,
            tags=[tag[:LONGEST_TAG] for tag in dict.fromkeys(tags)],
            config=run.model_dump(mode="json"),
            settings=settings,
        )

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do it, unless this run has ended or failed in wandb before."""
        if not self.open:
            return
        try:
            work()
        except Exception as error:  # whatever wandb raises, the training goes on
            _log.warning("warning: wandb: %s; the run goes on without it", one_line(error))
            self.open = False


def tracker(run: Run, folder: Path, mode: Tracking, writes: bool = True) -> Tracker:
    """The way to wandb of a run whose directory is `folder`; only the process that writes its files has one."""
    return WandbTracker(run, folder, mode) if mode != "off" and writes else Tracker()
