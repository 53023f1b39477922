"""`kdseg new-baseline`: a new method's file, ready to edit."""

from __future__ import annotations

import keyword
import re
from argparse import Namespace
from pathlib import Path
from string import Template

from benchmark.cli.options import Commands, add_command
from benchmark.core.errors import KdsegError
from benchmark.core.paths import checkout

TEMPLATE = Path(__file__).parent / "templates" / "baseline.py.txt"


def add_commands(commands: Commands) -> None:
    """Declare `kdseg new-baseline`."""
    sub = add_command(
        commands, new_baseline, "new-baseline", "write a new method's file, ready to edit", "kdseg new-baseline my_kd"
    )
    sub.add_argument("name", help="of the file, the method and its table row, in lower case")
    sub.add_argument("--title", help="its name in tables (default: the name in capitals)")


def new_baseline(arguments: Namespace) -> int:
    """`kdseg new-baseline`: write `baselines/NAME.py`, a method that works and passes conformance, to be made yours."""
    import baselines
    from benchmark.method.registry import method_files

    checkout("new-baseline")
    name, title = arguments.name, arguments.title or arguments.name.upper()
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise KdsegError(
            f"new-baseline: {name!r} cannot name a method; use lower-case letters, digits and _, as in my_kd"
        )
    if name in method_files():
        raise KdsegError(
            f"new-baseline: {method_files()[name].replace('.', '/')}.py is there already; take another name"
        )
    if not title.strip() or not title.isprintable() or set(title) & set('"\\'):
        raise KdsegError(f"new-baseline: --title {title!r}: use printable text without quotation marks or backslashes")
    class_name = "".join(part.capitalize() for part in name.split("_"))
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(name=name, title=title, class_name=class_name)
    file = Path(baselines.__path__[0]) / f"{name}.py"
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise KdsegError(f"new-baseline: {file}: cannot be written: {error.strerror}") from None
    print(f"{file}: edit the formula, title and source")
    print(f"test it:  pytest tests/test_conformance.py -k {name}")
    print(f"use it:   name {name} under methods: in a sweep file, e.g. a copy of slurm/sweeps/tiny.yaml")
    return 0
