"""Finds the methods: every module in `baselines/` and `methods/` that defines one subclass of `Method`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache

from benchmark.core.errors import KdsegError, unknown
from benchmark.core.paths import METHOD_PACKAGES
from benchmark.method import Method


@cache
def method_files() -> dict[str, str]:
    """Method name -> the module that defines it; nothing is imported but the two packages.

    Names with a leading underscore are private helpers, not methods.
    """
    files: dict[str, str] = {}
    for package in METHOD_PACKAGES:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            if module.name.startswith("_"):
                continue
            if module.name in files:
                raise KdsegError(
                    f"{package}/{module.name}.py: a method of that name is in {files[module.name]} already"
                )
            files[module.name] = f"{package}.{module.name}"
    return files


def method_class(name: str) -> type[Method]:
    """The class of the method called `name`.

    Raises:
        KdsegError: there is no such method (with near matches), or its file does not define exactly one.
    """
    if name not in method_files():
        raise unknown("method", name, method_files())
    try:
        module = importlib.import_module(method_files()[name])
    except Exception as error:
        path = method_files()[name].replace(".", "/")
        raise KdsegError(f"{path}.py: cannot be imported: {type(error).__name__}: {error}") from error
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise KdsegError(f"{module.__file__}: defines {len(classes)} methods, one file must define exactly one")
    _check(classes[0], str(module.__file__))
    return classes[0]


def _check(kind: type[Method], file: str) -> None:
    """Refuse a class that lacks a name or `losses`, or holds a number that cannot be set because it has no type."""
    missing = [name for name in ("title", "source", "version") if not hasattr(kind, name)]
    if missing:
        raise KdsegError(f"{file}: {kind.__name__} has no {missing[0]}; write `{missing[0]} = ...` in the class")
    if inspect.isabstract(kind):
        raise KdsegError(
            f"{file}: {kind.__name__} has no losses; write `def losses(self, student, teacher, target, step)`"
        )
    known = {"title", "source", "version", "needs_teacher", *kind.hyper_types()}
    for name, value in vars(kind).items():
        if isinstance(value, bool | int | float | str) and name not in known and not name.startswith("_"):
            word = type(value).__name__
            raise KdsegError(f"{file}: {name} has no type, so it is no hyper-parameter; write `{name}: {word} = ...`")
