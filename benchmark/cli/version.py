"""`kdseg --version`: looked up only where it is asked for."""

from __future__ import annotations

import argparse
from typing import Any


class Version(argparse.Action):
    """Say the version and end."""

    def __init__(self, option_strings: list[str], dest: str, **rest: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, **rest)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Called by argparse where the option is found."""
        print(version_text())
        parser.exit()


def version_text() -> str:
    """Name and version; in a checkout also the short commit, with a `+` if its code differs from that."""
    from importlib.metadata import PackageNotFoundError, version

    from benchmark.core.environment import code_version

    try:
        text = f"kdseg {version('kdseg')}"
    except PackageNotFoundError:
        text = "kdseg, not installed"
    commit, changed = code_version()
    return text if commit == "unknown" else f"{text} ({commit[:7]}{'+' if changed else ''})"
