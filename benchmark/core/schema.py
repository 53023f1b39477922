"""Frozen, strictly typed data: what every module border in this suite is made of, and how it is read from files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from benchmark.core.errors import KdsegError, unknown

T = TypeVar("T", bound="Frozen")

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


class Frozen(BaseModel):
    """An immutable record with validated field types; a field it does not have is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def canonical(data: Any) -> str:
    """The one JSON text of `data`: sorted keys, no spaces; what content hashes are taken over."""
    if isinstance(data, BaseModel):
        data = data.model_dump(mode="json")
    return _CANONICAL.encode(data)


def content_hash(data: Any, digits: int = 16) -> str:
    """The first `digits` hex digits of the sha256 of the canonical JSON of `data`."""
    return hashlib.sha256(canonical(data).encode()).hexdigest()[:digits]


def parse(kind: type[T], data: Any, where: str) -> T:
    """Check plain `data` (from YAML or JSON) against `kind`.

    Raises:
        KdsegError: naming `where`, the first wrong key, and what would be right.
    """
    try:
        return kind.model_validate_json(json.dumps(data), strict=True)
    except (TypeError, ValueError) as error:
        if isinstance(error, ValidationError):
            raise _first_fault(kind, error, where) from None
        raise KdsegError(f"{where}: {error}") from None


def read_yaml(path: Path) -> Any:
    """The plain data in a YAML 1.2 file (so `1e-4` is a number, and a key given twice is an error)."""
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise KdsegError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise KdsegError(f"{path}: cannot be read: {error}") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = (getattr(error, "problem", None) or str(error)).splitlines()[0]
        raise KdsegError(f"{path}:{line} is not valid YAML: {problem}") from None


def read_json(path: Path) -> Any:
    """The plain data in a JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise KdsegError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise KdsegError(f"{path}: not readable as JSON: {error}") from None


def _first_fault(kind: type[BaseModel], error: ValidationError, where: str) -> KdsegError:
    faults = error.errors()
    fault = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])
    path = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        *parents, key = fault["loc"]
        fields = _fields_at(kind, parents)
        if fields is not None:
            return unknown("key", key, fields, where + ("." + ".".join(map(str, parents)) if parents else ""))
    got = "" if fault["type"] == "missing" else f", got {fault['input']!r}"[:120]
    if fault["type"] == "value_error":
        return KdsegError(f"{where}: {fault['msg'].removeprefix('Value error, ')}")
    return KdsegError(f"{where}: {path or 'content'}: {fault['msg']}{got}")


def _fields_at(kind: Any, path: list[Any]) -> list[str] | None:
    """The field names that are allowed at `path` inside `kind` (None where that is not a `Frozen`)."""
    for part in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel) and part in kind.model_fields:
            kind = kind.model_fields[part].annotation
        kind = next((k for k in _inner_models(kind)), kind)
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _inner_models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _inner_models(inner)]
