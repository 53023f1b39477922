"""What the library says goes through `logging`, one logger per module; commands show it as plain lines."""

from __future__ import annotations

import logging
import sys

PACKAGES = ("benchmark", "baselines", "methods", "slurm")


class _Lines(logging.Handler):
    """Progress goes to stdout and warnings go to stderr, as these are at that moment; a closed pipe is an error."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stdout if record.levelno < logging.WARNING else sys.stderr
        stream.write(self.format(record) + "\n")
        stream.flush()


_LINES = _Lines()


def show_messages() -> None:
    """Show what our packages say; for whoever starts a process. Other users of the library set `logging` up themselves.

    Calling it again changes nothing.
    """
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.setLevel(logging.INFO)
        logger.addHandler(_LINES)
