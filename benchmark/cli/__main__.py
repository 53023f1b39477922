"""The command line `kdseg`. Each module beside this one declares a command and holds what it does.

Nothing heavy is imported until a command is carried out, so that mistakes and `--help` are answered at once.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path

from benchmark.cli import (
    analyze,
    cancel,
    clean,
    collect,
    compare,
    data,
    doctor,
    export,
    figures,
    import_checkpoint,
    logs,
    new_baseline,
    plan,
    predict,
    records,
    report,
    show,
    status,
    submit,
    sweep,
    tables,
    train,
)
from benchmark.cli import eval as evaluation
from benchmark.cli import list as listing
from benchmark.cli.version import Version
from benchmark.core.errors import KdsegError

MODULES = (
    train,
    sweep,
    plan,
    submit,
    status,
    logs,
    cancel,
    tables,
    compare,
    collect,
    records,
    figures,
    report,
    listing,
    show,
    clean,
    export,
    evaluation,
    import_checkpoint,
    predict,
    analyze,
    new_baseline,
    data,
    doctor,
)
"""In the order of `kdseg --help`."""


def main(argv: list[str] | None = None) -> int:
    """Parse, run, and turn every mistake of the user's into one line; `--debug` shows the traceback."""
    arguments = parser().parse_args(argv)
    from benchmark.core.log import show_messages

    show_messages()
    try:
        code: int = arguments.function(arguments)
        return code
    except KdsegError as error:
        if arguments.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if arguments.debug:
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        print(f"error: {type(error).__name__}: {error} ({where}; --debug shows the traceback)", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """All commands with their options; each help ends with an example."""
    root = argparse.ArgumentParser(prog="kdseg", description="Which distillation method for segmentation really works?")
    root.add_argument("--debug", action="store_true", help="show tracebacks")
    root.add_argument("--version", action=Version, help="show the version and, in a checkout, its commit")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in MODULES:
        module.add_commands(commands)
    return root


if __name__ == "__main__":
    sys.exit(main())
