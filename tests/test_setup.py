"""setup.cfg names what the code imports, once."""

import ast
import configparser
import re
import sys
from importlib.metadata import packages_distributions

from benchmark.core.paths import ROOT

PACKAGES = ("benchmark", "baselines", "methods", "slurm")
OTHER_BUILDS = {"opencv-python-headless": "opencv-python"}
"""Distributions that hold the same modules as the one that is named."""


def named(section: str, key: str) -> list[str]:
    """The distributions in a list of setup.cfg, in lower case."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = [line for line in config[section][key].splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [re.split(r"[\s<>=!~;\[]", line.strip())[0].lower() for line in lines]


def imported() -> set[str]:
    """The top-level modules of others that our packages import."""
    names: set[str] = set()
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    names |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - set(PACKAGES)


def test_what_is_imported_is_named_once():
    required = named("options", "install_requires")
    assert len(required) == len(set(required))
    optional = named("options.extras_require", "wandb")
    holders = packages_distributions()
    for module in imported():
        candidates = {OTHER_BUILDS.get(name.lower(), name.lower()) for name in holders[module]}
        assert candidates & {*required, *optional}, f"setup.cfg does not name what holds the module {module}"


def test_what_is_named_is_imported():
    holders = packages_distributions()
    used = {OTHER_BUILDS.get(name.lower(), name.lower()) for module in imported() for name in holders[module]}
    assert set(named("options", "install_requires")) <= used
