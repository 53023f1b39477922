"""Recipes: what a published codebase ran under a method's name, term by term, with the source of every number.

`cwd@cirkd` is the recipe `cwd` of `baselines/recipes/cirkd.yaml`: KD, an adversary and two channel-wise terms, in the
form that code has (`as_released`). A bare name such as `cwd` is the method alone, in its paper's form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Self

from pydantic import model_validator
from torch import Tensor, nn

from benchmark.core.errors import KdsegError, unknown
from benchmark.core.paths import RECIPES
from benchmark.core.schema import Frozen, parse, read_yaml
from benchmark.method import Method, Part, Shapes, Taps
from benchmark.method.registry import method_class
from benchmark.spec.networks import Family, Pair
from benchmark.spec.runs import MethodSetting

LABELS = {Family.CNN: "CNN", Family.TRANSFORMER: "Transformer"}

Value = bool | int | float | str


class Recipe(Frozen):
    """One method as a codebase ran it.

    Attributes:
        title: its name in tables.
        terms: component method -> those of its hyper-parameters that differ from its defaults.
        sources: dataset -> where its numbers stand; the first is the one that `terms` says, and is carried over to
            every dataset that is not named.
        changes: dataset -> what differs there, as `component.hyper-parameter`.
        note: what else one has to know.
    """

    title: str
    terms: dict[str, dict[str, Value]]
    sources: dict[str, str]
    changes: dict[str, dict[str, Value]] = {}
    note: str = ""

    @model_validator(mode="after")
    def _changes_have_sources(self) -> Self:
        for name in self.changes:
            if name not in self.sources:
                raise ValueError(f"changes for {name}, but no source for it")
        return self

    @property
    def origin(self) -> str:
        """The dataset whose numbers are carried over to the others."""
        return next(iter(self.sources))

    def source(self, dataset: str) -> str:
        """Where the numbers for `dataset` stand."""
        return self.sources.get(dataset, f"carried over from {self.origin}: {self.sources[self.origin]}")


class Codebase(Frozen):
    """A file of `baselines/recipes/`: the recipes of one repository for one kind of pair."""

    name: str
    repository: str
    commit: str
    student: Family
    teacher: Family
    recipes: dict[str, Recipe]

    @property
    def pairs(self) -> str:
        """The kind of pair, in words."""
        return f"{LABELS[self.teacher]} → {LABELS[self.student]}"


class Bundle(Method):
    """Several methods at once: the sum of their terms, each with its own parts.

    Its hyper-parameters are theirs, as `component.hyper-parameter`; its version rises whenever one of theirs does.
    """

    def __init__(self, name: str, hyper: Mapping[str, Value]) -> None:
        nn.Module.__init__(self)
        self.parts: dict[str, Part] = {}
        self._name = name
        # A tuple: the components' modules are registered once, as this bundle's parts.
        self.components = tuple(method_class(key)(**values) for key, values in _grouped(hyper).items())
        self.version = sum(component.version for component in self.components)

    @property
    def name(self) -> str:
        """The recipe's name, `method@codebase`."""
        return self._name

    @property
    def taps(self) -> tuple[str, ...]:
        """All that a component reads."""
        return tuple(dict.fromkeys(tap for component in self.components for tap in component.taps))

    def hyper(self) -> dict[str, Any]:
        """All hyper-parameters of all components."""
        return {f"{c.name}.{key}": value for c in self.components for key, value in c.hyper().items()}

    def skip(self, pair: Pair) -> str | None:
        """The first reason that a component has."""
        reasons = (f"{c.name}: {reason}" for c in self.components if (reason := c.skip(pair)))
        return next(reasons, None)

    def build(self, student: Shapes, teacher: Shapes) -> dict[str, Part]:
        """The components' parts, as `component_part`."""
        for component in self.components:
            component.attach(student, teacher)
        return {f"{c.name}_{name}": part for c in self.components for name, part in c.parts.items()}

    def prepare(self, teacher: nn.Module, batches: Iterable[tuple[Taps, Tensor]]) -> None:
        """The components' first stages, one after the other."""
        for component in self.components:
            component.prepare(teacher, batches)

    def losses(self, student: Taps, teacher: Taps, target: Tensor, step: int) -> dict[str, Tensor]:
        """The components' terms, as `component.term`."""
        return {
            f"{component.name}.{term}": value
            for component in self.components
            for term, value in component.losses(student, teacher, target, step).items()
        }


def recipe_names() -> list[str]:
    """All recipes, as `method@codebase`."""
    return [f"{name}@{code}" for code in sorted(_codebases()) for name in codebase(code).recipes]


@cache
def codebase(name: str) -> Codebase:
    """The recipes of one codebase.

    Raises:
        KdsegError: there is no such file, or it holds a component or a hyper-parameter that there is not.
    """
    if name not in _codebases():
        raise unknown("codebase", name, _codebases())
    path = RECIPES / f"{name}.yaml"
    code = parse(Codebase, read_yaml(path), path.name)
    if code.name != name:
        raise KdsegError(f"{path.name}: name: is {code.name!r}, but the file is called {name!r}")
    return code


def recipe(name: str) -> tuple[Codebase, Recipe]:
    """The recipe called `method@codebase`; an unknown one is an error with near matches."""
    method, _, key = name.partition("@")
    if name not in recipe_names():
        raise unknown("recipe", name, recipe_names())
    code = codebase(key)
    return code, code.recipes[method]


def recipe_hyper(name: str, dataset: str | None = None) -> dict[str, Any]:
    """All hyper-parameters of a recipe on `dataset` (None: where its numbers come from), by `component.name`."""
    _, entry = recipe(name)
    values = {key: dict(hyper) for key, hyper in entry.terms.items()}
    for dotted, value in entry.changes.get(dataset or entry.origin, {}).items():
        component, _, key = dotted.partition(".")
        values.setdefault(component, {})[key] = value
    return {
        f"{component}.{key}": value
        for component, hyper in values.items()
        for key, value in method_class(component).validate(hyper).items()
    }


def recipe_note(name: str, dataset: str, pair: Pair | None = None) -> str:
    """What a table says about a recipe that is used where its authors did not: empty where they did."""
    if "@" not in name:
        return ""
    code, entry = recipe(name)
    notes = []
    if dataset not in entry.sources:
        notes.append(f"weights carried over from {entry.origin}")
    if pair and (pair.teacher.family, pair.student.family) != (code.teacher, code.student):
        notes.append(f"weights of {code.pairs} pairs")
    return f"{name}: {', '.join(notes)}" if notes else ""


def make_method(name: str, hyper: Mapping[str, Any]) -> Method:
    """The method called `name`, or the bundle of the recipe of that name, with these hyper-parameters.

    A bundle is made from `hyper` alone, all of it, so that a run means the same whatever becomes of the recipe's file.
    """
    return Bundle(name, hyper) if "@" in name else method_class(name)(**hyper)


def method_setting(name: str, hyper: Mapping[str, Any], dataset: str | None = None) -> MethodSetting:
    """The setting of the method or recipe `name` with these hyper-parameters; the others as it has them on `dataset`.

    Raises:
        KdsegError: an unknown method, recipe or hyper-parameter (with near matches), or a wrong value.
    """
    if "@" not in name:
        kind = method_class(name)
        return MethodSetting(name=name, version=kind.version, variant=kind.variant(hyper), hyper=kind.validate(hyper))
    code, entry = recipe(name)
    usual = recipe_hyper(name, dataset)
    for key in hyper:
        if key not in usual:
            raise unknown("hyper-parameter", key, usual, f"method {name}")
    method = Bundle(name, {**usual, **hyper})
    changed = [f"{key}={value}" for key, value in method.hyper().items() if value != usual[key]]
    return MethodSetting(
        name=name,
        version=method.version,
        variant=f"{entry.title} @{code.name}" + (f" ({', '.join(changed)})" if changed else ""),
        hyper=method.hyper(),
    )


def _codebases() -> set[str]:
    return {path.stem for path in RECIPES.glob("*.yaml")}


def _grouped(hyper: Mapping[str, Value]) -> dict[str, dict[str, Value]]:
    """`component.key` -> value as component -> key -> value."""
    groups: dict[str, dict[str, Value]] = {}
    for dotted, value in hyper.items():
        component, _, key = dotted.partition(".")
        groups.setdefault(component, {})[key] = value
    return groups
