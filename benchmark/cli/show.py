"""`kdseg show`: all about one method, model, dataset or protocol."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from benchmark.cli.options import Commands, add_command
from benchmark.cli.output import print_table
from benchmark.core.errors import unknown

if TYPE_CHECKING:
    from benchmark.spec.definitions import Dataset, Protocol


def add_commands(commands: Commands) -> None:
    """Declare `kdseg show`."""
    sub = add_command(
        commands, show, "show", "all about one method, model, dataset or protocol", "kdseg show heteroakd"
    )
    sub.add_argument("--flavour", choices=["mmseg", "cirkd"], default="mmseg", help="of a network")
    sub.add_argument("--classes", type=int, help="measure a network for so many classes")
    sub.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="measure a network at this size")
    sub.add_argument("name")


def show(arguments: Namespace) -> int:
    """`kdseg show`: everything about one name."""
    from benchmark.method.recipes import recipe_names
    from benchmark.method.registry import method_files
    from benchmark.spec import definitions
    from benchmark.spec.networks import networks

    name = arguments.name
    kinds = [kind for kind in ("datasets", "protocols") if name in definitions.names(kind)]
    if "@" in name and name not in networks():
        _show_recipe(name)
    elif name not in (*method_files(), *networks()) and not kinds:
        known = [*method_files(), *recipe_names(), *networks()]
        raise unknown("name", name, known + definitions.names("datasets") + definitions.names("protocols"))
    if name in method_files():
        _show_method(name)
    if name in networks():
        _show_network(arguments)
    for kind in kinds:
        _show_definition(definitions.dataset(name) if kind == "datasets" else definitions.protocol(name))
    return 0


def _show_method(name: str) -> None:
    from inspect import getdoc

    from benchmark.method.recipes import recipe_names
    from benchmark.method.registry import method_class, method_files

    kind = method_class(name)
    print(f"{kind.title} ({method_files()[name].replace('.', '/')}.py), version {kind.version}\n{kind.source}\n")
    print(f"{getdoc(kind)}\n\ntaps: {', '.join(kind().taps) or 'none'}\n")
    print_table("hyper-parameters", [{"name": key, "default": str(v)} for key, v in kind.defaults().items()])
    if kind.variants:
        print_table("named settings", [{"name": k, "differs in": _pairs(v)} for k, v in kind.variants.items()])
    recipes = [recipe for recipe in recipe_names() if recipe.partition("@")[0] == name]
    if recipes:
        print(f"as codebases ran it: {', '.join(recipes)} (kdseg show {recipes[0]})")


def _show_network(arguments: Namespace) -> None:
    """Its facts, measured anew where `--classes` or `--size` ask for it."""
    from benchmark.spec.networks import flavoured, network

    facts = network(flavoured(arguments.name, arguments.flavour))
    if arguments.classes or arguments.size:
        from benchmark.models.build import facts as measure

        facts = measure(facts.name, arguments.classes or facts.classes, tuple(arguments.size or facts.size))
    whole = facts.parameters + facts.auxiliary_parameters
    of_aux = f" ({facts.parameters / 1e6:.2f} M without auxiliary head)" if facts.auxiliary_parameters else ""
    print(f"{facts.title}: {facts.family}, {whole / 1e6:.2f} M parameters{of_aux},")
    print(f"{facts.gflops} GFLOPs (2 per multiply-add) at {facts.size[0]}×{facts.size[1]}, {facts.classes} classes")
    rows = [{"tap": key, "channels": t.channels, "stride": t.stride} for key, t in facts.taps.items()]
    print_table("taps", rows)
    if facts.note:
        print(facts.note)


def _show_definition(definition: Dataset | Protocol) -> None:
    """All keys with their values, `a.b` within `a`; long ones fold."""
    from benchmark.spec import definitions

    kind = "dataset" if isinstance(definition, definitions.Dataset) else "protocol"
    rows = [{"key": key, "value": value} for key, value in _flat(definition.model_dump(mode="json"))]
    print_table(f"{kind} {definition.name}, in run ids as {definitions.definition_hash(definition)}", rows)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif value not in (None, "", [], {}):
            yield prefix + key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _show_recipe(name: str) -> None:
    from benchmark.method.recipes import recipe, recipe_hyper
    from benchmark.spec import definitions

    code, details = recipe(name)
    usual = recipe_hyper(name)
    rows = []
    for dataset in dict.fromkeys((*details.sources, *definitions.names("datasets"))):
        changes = {key: value for key, value in recipe_hyper(name, dataset).items() if value != usual[key]}
        rows.append({"dataset": dataset, "differs in": _pairs(changes), "source": details.source(dataset)})
    print(f"{details.title} as {code.repository} @{code.commit[:7]} ran it, for {code.pairs} pairs")
    if details.note:
        print(details.note)
    print_table(f"on {details.origin}", [{"name": key, "value": str(value)} for key, value in usual.items()])
    print_table("sources", rows)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())
