"""What `make lint` cannot see of the floors: what importing a package really loads."""

import subprocess
import sys

import pytest

from benchmark.core.paths import ROOT

LIGHT = ("core", "spec", "records", "results", "report", "doctor")
"""Packages that read, count and show; none of them, nor what they import, may load torch or OpenMMLab."""
HEAVY = ("torch", "mmcv", "mmengine", "mmseg")

SCRIPT = f"""
import importlib, pkgutil, sys
package = importlib.import_module("benchmark." + sys.argv[1])
names = [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    importlib.import_module(name)
print(len(names), *sorted(set(sys.modules) & set({HEAVY!r})))
"""


@pytest.mark.parametrize("package", LIGHT)
def test_no_module_of_a_light_package_loads_torch(package):
    done = subprocess.run([sys.executable, "-c", SCRIPT, package], cwd=ROOT, capture_output=True, text=True, check=True)
    modules, *heavy = done.stdout.split()
    assert int(modules) > 2 and not heavy
