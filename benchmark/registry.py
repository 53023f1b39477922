"""Finds the methods: every module in `baselines/` and `methods/` that defines one subclass of `Method`."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from benchmark.errors import KdsegError, unknown
from benchmark.method import Method

PACKAGES = ("baselines", "methods")


@cache
def method_files() -> dict[str, str]:
    """Method name -> the module that defines it; nothing is imported but the two packages.

    Names with a leading underscore are private helpers, not methods.
    """
    found: dict[str, str] = {}
    for package in PACKAGES:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            if module.name.startswith("_"):
                continue
            if module.name in found:
                raise KdsegError(
                    f"{package}/{module.name}.py: a method of that name is in {found[module.name]} already"
                )
            found[module.name] = f"{package}.{module.name}"
    return found


def method_class(name: str) -> type[Method]:
    """The class of the method called `name`.

    Raises:
        KdsegError: there is no such method (with near matches), or its file does not define exactly one.
    """
    if name not in method_files():
        raise unknown("method", name, method_files())
    module = importlib.import_module(method_files()[name])
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise KdsegError(f"{module.__file__}: defines {len(classes)} methods, one file must define exactly one")
    return classes[0]
