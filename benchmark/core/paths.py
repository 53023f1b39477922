"""Where things are: in a checkout, or in an installed copy, which holds the same data files below the same folders."""

from __future__ import annotations

from pathlib import Path

from benchmark.core.errors import KdsegError

ROOT = Path(__file__).parents[2]
"""The folder that holds `benchmark/`: the checkout, or the environment's site-packages."""

METHOD_PACKAGES = ("baselines", "methods")
"""The packages whose modules are methods."""

PUBLISHED = ROOT / "results" / "published"
"""Numbers from papers."""
RECIPES = ROOT / "baselines" / "recipes"
SWEEPS = ROOT / "slurm" / "sweeps"
PROFILES = ROOT / "slurm" / "profiles"
SPEC = ROOT / "benchmark" / "spec"
"""Definitions of data sets and protocols, and the facts of networks."""


def in_checkout() -> bool:
    """Whether this code runs from a checkout: then it can be edited, tested and asked for its commit."""
    return (ROOT / "setup.cfg").is_file() and (ROOT / "tests").is_dir()


def checkout(what_for: str) -> Path:
    """The checkout.

    Raises:
        KdsegError: this is an installed copy.
    """
    if not in_checkout():
        raise KdsegError(
            f"{what_for}: needs a checkout of kdseg, and this is an installed copy ({ROOT}); "
            "clone the repository and run `pip install -e .` there"
        )
    return ROOT
