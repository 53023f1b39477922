"""What a method's file says of itself, read without importing it: reports load no torch."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from typing import Any

from benchmark.core.paths import METHOD_PACKAGES, ROOT


@dataclass(frozen=True)
class MethodText:
    """A method in its own words.

    Attributes:
        file: below the repository.
        about: the docstrings of module and class.
        formulas: (function, docstring) of the module's public functions, which hold the formulas.
        defaults: hyper-parameter -> default value, where that is a literal.
    """

    name: str
    file: str
    title: str
    source: str
    about: tuple[str, ...]
    formulas: tuple[tuple[str, str], ...]
    defaults: dict[str, Any]


@cache
def method_text(name: str) -> MethodText | None:
    """The method called `name`; None if there is no such file here (a record may come from elsewhere)."""
    files = [ROOT / package / f"{name}.py" for package in METHOD_PACKAGES]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return None
    module = ast.parse(file.read_text(encoding="utf-8"))
    kind = _method(module)
    values = _literals(kind.body) if kind else {}
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    texts = [(node.name, ast.get_docstring(node)) for node in functions]
    about = [ast.get_docstring(node) for node in (module, kind) if node]
    return MethodText(
        name=name,
        file=str(file.relative_to(ROOT)),
        title=str(values.get("title", name)),
        source=str(values.get("source", "")),
        about=tuple(text for text in about if text),
        formulas=tuple((name, text) for name, text in texts if text),
        defaults=_literals([node for node in kind.body if isinstance(node, ast.AnnAssign)]) if kind else {},
    )


def _method(module: ast.Module) -> ast.ClassDef | None:
    """The class that is a method: the one with a title of its own."""
    kinds = [node for node in module.body if isinstance(node, ast.ClassDef)]
    return next((kind for kind in kinds if "title" in _literals(kind.body)), None)


def _literals(nodes: list[ast.stmt]) -> dict[str, Any]:
    literals = {}
    for node in nodes:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(target, ast.Name) and value is not None:
            try:
                literals[target.id] = ast.literal_eval(value)
            except ValueError:
                continue
    return literals
