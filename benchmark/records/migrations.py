"""Records of earlier schemas, brought to the present one. Each step is a pure function of the plain data of a record.

A change of what a record holds raises `record.SCHEMA` and adds the step from the one before; run ids never change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Data = Mapping[str, Any]


def _one_device(data: Data) -> dict[str, Any]:
    """1 → 2: `cost.devices` is new; until then every run was trained on one."""
    return {**data, "cost": {**data["cost"], "devices": 1}}


MIGRATIONS: dict[int, Callable[[Data], dict[str, Any]]] = {1: _one_device}
"""Schema -> the step to the next one."""


def migrated(data: Data, schema: int) -> dict[str, Any]:
    """The data of a record of any schema in `MIGRATIONS`, as `schema` has it.

    Raises:
        KeyError: a part that its own schema demands is missing.
    """
    version = data["schema_version"]
    while version < schema:
        data = MIGRATIONS[version](data)
        version += 1
    return {**data, "schema_version": schema}
