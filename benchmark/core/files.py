"""Files that are whole or not there: atomic writing, and reading back only what was meant."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from benchmark.core.errors import KdsegError


def file_sha256(path: Path) -> str:
    """The sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(folder: Path) -> None:
    """Make a folder with its parents, unless it is there.

    Raises:
        KdsegError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KdsegError(f"{folder}: cannot be written: {error.strerror or error}") from error


def write_json(file: Path, data: Any) -> None:
    """Write JSON so that a reader sees the old content or the new, never a part."""
    write_bytes(file, (json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode())


def write_bytes(file: Path, content: bytes | memoryview) -> None:
    """Write a file under a temporary name, make it durable, and put it in place."""
    with replacing(file) as stream:
        stream.write(content)


def append_line(file: Path, line: str) -> None:
    """Append a line to a text file.

    Raises:
        KdsegError: the file cannot be written.
    """
    try:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
    except OSError as error:
        raise KdsegError(f"{file}: cannot be written: {error.strerror or error}") from error


@contextmanager
def replacing(file: Path) -> Iterator[IO[bytes]]:
    """A stream whose content becomes `file` at the end; on an error nothing is left behind.

    Raises:
        KdsegError: the file cannot be written (disk full, no permission).
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError as error:
        raise KdsegError(f"{file}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
