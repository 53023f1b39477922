"""Holds a run where a test wants it. Python imports this by itself where the folder is on PYTHONPATH.

GATES names a folder with a file per run that is to be held, called as the run's id: `before NAME` is the moment before
the run's file NAME is put in place, `after NAME` the first step of an optimiser after it. The process that comes there
appends its own id to the name of the gate, and waits until that is removed. No number of the run depends on it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

GATES = Path(os.environ["KDSEG_TEST_GATES"])


def watch(event: str, arguments: tuple) -> None:
    """See each file that is put in place by a rename."""
    if event != "os.rename":
        return
    file = Path(os.fsdecode(arguments[1]))
    gate = GATES / file.parent.name
    try:
        when, name = gate.read_text().split()
    except OSError:
        return
    if name != file.name:
        return
    if when == "before":
        wait(gate)
    else:
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        register_optimizer_step_pre_hook(lambda *_: wait(gate))


def wait(gate: Path) -> None:
    """Wait at a gate, unless somebody else has come to it."""
    place = gate.with_name(f"{gate.name}.{os.getpid()}")
    try:
        gate.rename(place)
    except FileNotFoundError:
        return
    while place.exists():
        time.sleep(0.05)


sys.addaudithook(watch)
