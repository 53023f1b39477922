"""What the READMEs show is executed as it stands there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.cli.__main__ import parser
from benchmark.cli.options import COHORT
from benchmark.cli.plan import hours, size
from benchmark.spec.runs import Execution
from benchmark.sweeps.estimate import estimate
from benchmark.sweeps.plan import cohorts, load_sweep, plan_sweep, sweep_file

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TUTORIAL = (ROOT / "baselines" / "README.md").read_text()


def test_every_command_that_is_shown_can_be_parsed():
    text = README.replace("\\\n", " ")
    shown = re.findall(r"^\.venv/bin/kdseg (.*?)(?:\s+#.*)?$", text, re.MULTILINE)
    assert len(shown) >= 5
    for line in shown:
        parser().parse_args(re.sub(r'"(\w+) (\w+)"', r"\1\2", line).split())


def test_the_cost_of_each_sweep_is_what_plan_says():
    rows = re.findall(r"^\| `([\w-]+)` \| (\d+) \| (\d+) \| ([^|]+) \| ([^|]+) \|$", README, re.MULTILINE)
    assert {row[0] for row in rows} >= {"cityscapes", "voc", "ade20k", "figure6", "ablation", "anchors", "demo", "tiny"}
    for name, *said in rows:
        plan = plan_sweep(load_sweep(sweep_file(name)), None, [])
        jobs = cohorts(plan, Path("work"), None, Execution(), COHORT)
        cost = estimate(jobs, {})
        assert said == [str(cost.runs), str(len(jobs)), hours(cost.hours), size(cost.disk_gb)], name


def blocks(text):
    """The fenced blocks of a page, as (language, content)."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_short_tutorial_is_the_beginning_of_the_long_one():
    commands = [re.sub(r" +#.*", "", content) for language, content in blocks(TUTORIAL) if language == "sh"]
    assert commands[0] in [re.sub(r" +#.*", "", content) for language, content in blocks(README) if language == "sh"]


@pytest.mark.slow
def test_the_tutorial_leads_from_nothing_to_a_row_and_a_golden_case(tmp_path):
    tree = tmp_path / "kdseg"
    left_out = shutil.ignore_patterns(".git", ".venv", "work_dirs", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, tree, ignore=left_out)
    (tree / ".venv").mkdir()
    (tree / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    environment = os.environ | {"PYTHONPATH": str(tree), "COLUMNS": "200"}
    said = []
    for language, content in blocks(TUTORIAL):
        file = re.match(r"# (\S+)\n", content)
        if file:
            (tree / file[1]).write_text(content.removeprefix(file[0]))
        else:
            assert language == "sh"
            done = subprocess.run(
                ["bash", "-e", "-c", content], cwd=tree, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr
            said.append(done.stdout)
    assert "Logit MSE" in said[0] and re.search(r"Logit MSE.*[+−0]\.?\d", said[0]), "a row with its Δ"
    assert (tree / "work_dirs" / "mine" / "tables").is_dir()

    code = "from pathlib import Path; from benchmark.sweeps.plan import load_sweep, plan_sweep; "
    code += "print(*[run.method.variant for run in plan_sweep(load_sweep(Path('camvid-mine.yaml'))).manifest.runs])"
    planned = subprocess.run(
        [sys.executable, "-c", code], cwd=tree, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "Logit MSE: logits only" in planned
    assert subprocess.run([sys.executable, "-m", "ruff", "format", "--check", "baselines"], cwd=tree).returncode == 0


def test_the_sweeps_that_come_with_it_can_be_planned():
    for path in sorted((ROOT / "slurm" / "sweeps").glob("*.yaml")):
        if not load_sweep(path).weights:
            assert plan_sweep(load_sweep(path)).manifest.runs


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
