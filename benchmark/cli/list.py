"""Commands that tell what there is: `list`, `show`, `doctor`."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console

from benchmark.cli.output import print_table
from benchmark.core.errors import unknown
from benchmark.core.paths import SWEEPS
from benchmark.spec import definitions
from benchmark.spec.networks import flavoured, network, networks


def list_names(arguments: Namespace) -> int:
    """`kdseg list`: names with a line each."""
    rows: dict[str, Callable[[], Any]] = {
        "methods": _method_rows,
        "models": lambda: [
            {"model": n.name, "title": n.title, "family": n.family, "parameters": f"{n.parameters / 1e6:.2f} M"}
            for n in networks().values()
        ],
        "datasets": lambda: [_definition_row("dataset", definitions.dataset(n)) for n in definitions.names("datasets")],
        "protocols": lambda: [
            _definition_row("protocol", definitions.protocol(n)) for n in definitions.names("protocols")
        ],
        "sweeps": lambda: [{"sweep": str(path)} for path in sorted(SWEEPS.glob("*.yaml"))],
    }
    print_table("", rows[arguments.kind]())
    return 0


def show(arguments: Namespace) -> int:
    """`kdseg show`: everything about one name."""
    from inspect import getdoc

    from benchmark.method.recipes import recipe_names
    from benchmark.method.registry import method_class, method_files

    name = arguments.name
    kinds = [kind for kind in ("datasets", "protocols") if name in definitions.names(kind)]
    if "@" in name and name not in networks():
        _show_recipe(name)
    elif name not in (*method_files(), *networks()) and not kinds:
        known = [*method_files(), *recipe_names(), *networks()]
        raise unknown("name", name, known + definitions.names("datasets") + definitions.names("protocols"))
    if name in method_files():
        kind = method_class(name)
        print(f"{kind.title} ({method_files()[name].replace('.', '/')}.py), version {kind.version}\n{kind.source}\n")
        print(f"{getdoc(kind)}\n\ntaps: {', '.join(kind().taps) or 'none'}\n")
        print_table("hyper-parameters", [{"name": key, "default": str(v)} for key, v in kind.defaults().items()])
        if kind.variants:
            print_table("named settings", [{"name": k, "differs in": _pairs(v)} for k, v in kind.variants.items()])
        recipes = [recipe for recipe in recipe_names() if recipe.partition("@")[0] == name]
        if recipes:
            print(f"as codebases ran it: {', '.join(recipes)} (kdseg show {recipes[0]})")
    if name in networks():
        facts = network(flavoured(name, arguments.flavour))
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
    for kind in kinds:
        _show_definition(definitions.dataset(name) if kind == "datasets" else definitions.protocol(name))
    return 0


def doctor(arguments: Namespace) -> int:
    """`kdseg doctor`: what this machine can do; 1 if something that is needed is missing or broken."""
    from benchmark.doctor.machine import data_roots, examine, healthy, show, weights_folder

    roots, weights = data_roots(arguments.data_root), weights_folder(arguments.weights_dir)
    with Console(stderr=True).status("looking at this machine"):
        findings = examine(arguments.work_dir, roots, weights)
        if arguments.profile:
            from slurm.doctor import examine_profile

            findings += examine_profile(arguments.profile, arguments.work_dir)
    if arguments.format == "json":
        print(json.dumps([asdict(finding) for finding in findings], indent=1, ensure_ascii=False))
    else:
        show(findings, Console())
    return 0 if healthy(findings) else 1


def _show_definition(definition: definitions.Dataset | definitions.Protocol) -> None:
    """All keys with their values, `a.b` within `a`; long ones fold."""
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

    code, found = recipe(name)
    usual = recipe_hyper(name)
    rows = []
    for dataset in dict.fromkeys((*found.sources, *definitions.names("datasets"))):
        changes = {key: value for key, value in recipe_hyper(name, dataset).items() if value != usual[key]}
        rows.append({"dataset": dataset, "differs in": _pairs(changes), "source": found.source(dataset)})
    print(f"{found.title} as {code.repository} @{code.commit[:7]} ran it, for {code.pairs} pairs")
    if found.note:
        print(found.note)
    print_table(f"on {found.origin}", [{"name": key, "value": str(value)} for key, value in usual.items()])
    print_table("sources", rows)


def _method_rows() -> Any:
    from benchmark.method.recipes import make_method, recipe, recipe_hyper, recipe_names
    from benchmark.method.registry import method_class, method_files

    kinds = {name: method_class(name) for name in method_files()}
    rows = [{"method": name, "title": k.title, "version": k.version, "source": k.source} for name, k in kinds.items()]
    for name in recipe_names():
        code, found = recipe(name)
        version = make_method(name, recipe_hyper(name)).version
        source = f"{code.repository.removeprefix('https://')} @{code.commit[:7]}"
        rows.append({"method": name, "title": found.title, "version": version, "source": source})
    return rows


def _definition_row(kind: str, definition: Any) -> dict[str, str]:
    return {kind: definition.name, "title": definition.title, "source": definition.source}


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())
