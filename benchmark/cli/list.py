"""`kdseg list`: names with a line each."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from benchmark.cli.options import Commands, add_command
from benchmark.cli.output import print_table
from benchmark.core.paths import SWEEPS

if TYPE_CHECKING:
    from benchmark.spec.definitions import Dataset, Protocol


def add_commands(commands: Commands) -> None:
    """Declare `kdseg list`."""
    sub = add_command(
        commands, list_names, "list", "methods, models, datasets, protocols, sweeps", "kdseg list methods"
    )
    sub.add_argument("kind", choices=("methods", "models", "datasets", "protocols", "sweeps"))


def list_names(arguments: Namespace) -> int:
    """`kdseg list`: names with a line each."""
    from benchmark.spec import definitions
    from benchmark.spec.networks import networks

    rows: dict[str, Callable[[], Sequence[Mapping[str, object]]]] = {
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


def _method_rows() -> list[dict[str, object]]:
    from benchmark.method.recipes import make_method, recipe, recipe_hyper, recipe_names
    from benchmark.method.registry import method_class, method_files

    kinds = {name: method_class(name) for name in method_files()}
    rows = [{"method": name, "title": k.title, "version": k.version, "source": k.source} for name, k in kinds.items()]
    for name in recipe_names():
        code, details = recipe(name)
        version = make_method(name, recipe_hyper(name)).version
        source = f"{code.repository.removeprefix('https://')} @{code.commit[:7]}"
        rows.append({"method": name, "title": details.title, "version": version, "source": source})
    return rows


def _definition_row(kind: str, definition: Dataset | Protocol) -> dict[str, str]:
    return {kind: definition.name, "title": definition.title, "source": definition.source}
