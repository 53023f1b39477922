"""`pip install .`, not editable, in an environment of its own: results are read, or one line says what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from benchmark.core.paths import ROOT

pytestmark = pytest.mark.slow

SOURCES = ("benchmark", "baselines", "methods", "slurm", "results/published", "setup.cfg", "pyproject.toml")
TEXTS = ("README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel, built from a copy of the sources."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, source / name)
    for name in TEXTS:
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """An environment with the wheel in it; what kdseg depends on comes from this one, whose own kdseg is not seen."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(packages), str(wheel)]
    subprocess.run(install, check=True, capture_output=True, text=True)
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder


@pytest.fixture
def kdseg(installed, tmp_path):
    """Runs a command of the installed copy, in an empty folder."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "KDSEG"))}

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        code = "import sys; from benchmark.cli.__main__ import main; sys.exit(main())"
        command = [str(installed / "bin" / "python"), "-c", code, *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, env=clean | {"COLUMNS": "200"}, capture_output=True, text=True)

    return run


def test_it_is_the_installed_copy_that_runs(installed, tmp_path):
    code = "import benchmark, baselines, slurm; print(benchmark.__path__[0], baselines.__path__[0], slurm.__path__[0])"
    done = subprocess.run([str(installed / "bin" / "python"), "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.count(str(installed)) == 3, done.stdout + done.stderr


def test_tables_are_those_of_a_checkout(kdseg, tmp_path):
    done = kdseg("tables", "--work-dir", ROOT / "results" / "records", "--out", "tables", "--format", "md,csv")
    assert done.returncode == 0, done.stderr
    made = {file.name: file.read_bytes() for file in (tmp_path / "tables").iterdir()}
    assert made == {file.name: file.read_bytes() for file in (ROOT / "results" / "tables").iterdir()}


def test_figures_and_report_are_made(kdseg, tmp_path):
    records = ROOT / "results" / "records"
    done = kdseg("figures", "--fig", "6", "--work-dir", records, "--out", "figures")
    assert done.returncode == 0 and list((tmp_path / "figures").glob("*.pdf")), done.stderr
    done = kdseg("report", "--work-dir", records, "--output", "report.html")
    assert done.returncode == 0, done.stderr
    assert "HeteroAKD" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "methods"), "heteroakd"),
        (("list", "datasets"), "cityscapes"),
        (("list", "protocols"), "cirkd"),
        (("list", "sweeps"), "tiny.yaml"),
        (("plan", "tiny"), "tiny"),
    ],
)
def test_what_there_is_can_be_listed_and_planned(kdseg, arguments, said):
    done = kdseg(*arguments)
    assert done.returncode == 0 and said in done.stdout, done.stdout + done.stderr


def test_the_commit_of_a_repository_around_it_is_not_taken_for_its_own(installed, tmp_path):
    git = ["git", "-c", "user.name=me", "-c", "user.email=me@example.org", "-C", str(installed)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "another project"], check=True)
    code = "from benchmark.core.environment import code_version; print(*code_version())"
    done = subprocess.run([str(installed / "bin" / "python"), "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "unknown True\n", done.stderr


def test_what_needs_a_checkout_says_so_in_one_line(kdseg):
    done = kdseg("new-baseline", "mine")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: new-baseline: needs a checkout of kdseg")
