from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import baselines
from benchmark.cli.__main__ import main
from benchmark.core.paths import ROOT
from benchmark.method import registry
from benchmark.method.registry import method_class, method_files


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder that new baselines are written to, next to the real ones."""
    monkeypatch.setattr(baselines, "__path__", [str(tmp_path), *baselines.__path__])
    registry.method_files.cache_clear()
    yield tmp_path
    registry.method_files.cache_clear()
    for name in [name for name in sys.modules if name.startswith("baselines.zz_")]:
        del sys.modules[name]


def test_a_new_baseline_is_a_whole_method_in_its_final_form(folder, capsys) -> None:
    assert main(["new-baseline", "zz_new", "--title", "New KD"]) == 0
    file = folder / "zz_new.py"
    assert len(file.read_text().splitlines()) < 60 and "$" not in file.read_text()
    assert "-k zz_new" in capsys.readouterr().out
    registry.method_files.cache_clear()
    assert "zz_new" in method_files()
    kind = method_class("zz_new")
    assert (kind.__name__, kind.title, set(kind().taps)) == ("ZzNew", "New KD", {"logits", "pre_classifier"})
    for arguments in (["check"], ["format", "--check"]):
        config = ["--config", str(ROOT / "pyproject.toml")]
        assert subprocess.run([sys.executable, "-m", "ruff", *arguments, *config, str(file)]).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["kd"], "baselines/kd.py is there already"),
        (["My-KD"], "cannot name a method"),
        (["_hidden"], "cannot name a method"),
        (["class"], "cannot name a method"),
        (["../kd2"], "cannot name a method"),
        (["zz_new", "--title", 'a "b"'], "--title"),
        (["zz_new", "--title", " "], "--title"),
    ],
)
def test_what_cannot_be_a_method_is_one_clear_line_and_nothing_is_written(folder, capsys, arguments, said) -> None:
    assert main(["new-baseline", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not list(folder.iterdir())


def test_a_file_is_never_overwritten_and_a_missing_folder_is_named(folder, capsys) -> None:
    (folder / "zz_new.py").write_text("mine")
    registry.method_files.cache_clear()
    assert main(["new-baseline", "zz_new"]) == 2
    assert (folder / "zz_new.py").read_text() == "mine"
    baselines.__path__.insert(0, str(folder / "gone"))
    assert main(["new-baseline", "zz_other"]) == 2
    assert "cannot be written" in capsys.readouterr().err
