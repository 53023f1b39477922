import importlib
import sys

import pytest

from benchmark.core.errors import KdsegError
from benchmark.method import registry
from benchmark.method.registry import method_class, method_files

METHOD = """
from benchmark.method import Method

class Mine(Method):
    title = "Mine"
    source = "tests"
    version = 1
    {line}

    def losses(self, student, teacher, target, step):
        return {{}}
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes a method file called `mine` and registers it."""
    package = importlib.import_module("baselines")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    found = method_files()
    monkeypatch.setattr(registry, "method_files", lambda: found | {"mine": "baselines.mine"})

    def write(text):
        sys.modules.pop("baselines.mine", None)
        (tmp_path / "mine.py").write_text(text)
        importlib.invalidate_caches()

    yield write
    sys.modules.pop("baselines.mine", None)


def test_methods_are_found_by_file_name_and_private_files_are_not_methods():
    assert {"student", "kd", "cwd", "skd", "heteroakd"} <= set(method_files())
    assert not [name for name in method_files() if name.startswith("_")]


def test_a_method_file_is_all_it_takes(mine):
    mine(METHOD.format(line="weight: float = 1.0"))
    assert method_class("mine").defaults() == {"weight": 1.0}


def test_an_attribute_that_is_a_module_is_no_hyper_parameter(mine):
    mine("from torch import nn\n" + METHOD.format(line="align: nn.Conv2d"))
    assert method_class("mine").defaults() == {}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            METHOD.format(line="weight = 1.0"),
            "weight has no type, so it is no hyper-parameter; write `weight: float = ",
        ),
        (METHOD.format(line="").replace("version = 1", ""), "Mine has no version; write `version = ...` in the class"),
        (
            METHOD.format(line="").replace("losses", "loses"),
            "Mine has no losses; write `def losses(self, student, teacher, target, step)`",
        ),
        ("class Nothing: pass", "defines 0 methods, one file must define exactly one"),
        ("def (:", "baselines/mine.py: cannot be imported: SyntaxError"),
    ],
)
def test_a_wrong_method_file_is_one_clear_line(mine, text, line):
    mine(text)
    with pytest.raises(KdsegError) as error:
        method_class("mine")
    assert line in str(error.value)
