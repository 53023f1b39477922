"""Errors a user can act on: one line that says what is wrong, where, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KdsegError(Exception):
    """A mistake in the input or the surroundings; the CLI prints its one line and no traceback."""


def unknown(kind: str, name: object, known: Iterable[str], where: str = "") -> KdsegError:
    """The error for a name that does not exist, with its near matches (or all names, if none is near)."""
    names = sorted(set(known))
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"
    return KdsegError(f"{where + ': ' if where else ''}unknown {kind} {str(name)!r}; {hint}")


def one_line(error: BaseException) -> str:
    """What an error says, short and in one line; after its type, unless it is one of ours."""
    message = " ".join(str(error).split())[:400]
    return message if isinstance(error, KdsegError) else f"{type(error).__name__}: {message}"
