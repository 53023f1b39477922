"""What the README shows is executed as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import baselines
from benchmark import registry
from benchmark.cli import parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_command_that_is_shown_can_be_parsed():
    text = README.replace("\\\n", " ")
    shown = re.findall(r"^\.venv/bin/kdseg (.*?)(?:\s+#.*)?$", text, re.MULTILINE)
    assert len(shown) >= 5
    for line in shown:
        parser().parse_args(line.split())


def test_the_method_that_is_shown_is_a_whole_method(world, teacher, tmp_path, monkeypatch):
    (source,) = re.findall(r"```python\n(# baselines/mse\.py\n.*?)```", README, re.DOTALL)
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "mse.py").write_text(source)
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(tmp_path / "shown")])
    found = registry.method_files()
    monkeypatch.setattr(registry, "method_files", lambda: found | {"mse": "baselines.mse"})
    run = world.run("mse", teacher=teacher, hyper={"weight": 0.5})
    assert world.train([run], "a") == []
    assert world.record(run, "a").result.last.miou > 0


@pytest.mark.slow
def test_the_tiny_sweep_goes_from_nothing_to_a_table_and_is_not_trained_twice(tmp_path):
    def kdseg(*arguments):
        command = [sys.executable, "-m", "benchmark.cli", *arguments, "--work-dir", str(tmp_path)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "3 runs, 0 done, 2 jobs to run" in kdseg("sweep", "slurm/sweeps/tiny.yaml", "--jobs", "2")
    kdseg("status", "tiny")
    said = kdseg("tables", "--format", "md,csv,terminal")
    assert "KD" in said and "Student" in said
    table = (tmp_path / "tables" / "main-drawn-demo.md").read_text()
    assert "KD" in table and "–" not in table.split("\n\n")[0]
    assert "all 3 runs are done" in kdseg("sweep", "slurm/sweeps/tiny.yaml")
