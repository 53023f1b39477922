"""Golden cases: numbers recorded from the published reference implementations (see README.md beside this file)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.numbers import note

HERE = Path(__file__).parent
DEFAULT_TOLERANCE = 1e-6
"""For floats without a tolerance of their own, and the least one where the right value is zero."""


@dataclass(frozen=True)
class Case:
    """One recorded call: `inputs`, `params` and `rand` went in; `expected` (`out.*`, `grad.*`) came out."""

    name: str
    inputs: dict[str, np.ndarray]
    params: dict[str, np.ndarray]
    rand: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]
    meta: dict[str, Any]

    @property
    def hyper(self) -> dict[str, Any]:
        """The hyper-parameters of the call."""
        return self.meta["hyper"]

    def tensor(self, name: str, requires_grad: bool = False) -> Tensor:
        """The input or parameter `name` as a new tensor; integers are int64, as labels are in training."""
        array = self.inputs[name] if name in self.inputs else self.params[name]
        array = array if array.dtype.kind == "f" else array.astype(np.int64)
        return torch.from_numpy(array.copy()).requires_grad_(requires_grad)

    def tolerance(self, key: str) -> float:
        """The largest difference allowed at `key`."""
        limit = self.meta.get("tol_abs", {}).get(key, DEFAULT_TOLERANCE)
        # Where student and teacher are equal the recorded limit is relative to zero, so rounding alone may exceed it.
        return max(limit, DEFAULT_TOLERANCE) if self.meta.get("zero_case") else limit


def load(path: Path) -> Case:
    """The case in one npz file."""
    with np.load(path, allow_pickle=False) as arrays:
        groups: dict[str, dict[str, np.ndarray]] = {"in": {}, "param": {}, "rand": {}}
        expected = {}
        for key in arrays.files:
            group, _, name = key.partition(".")
            if group in groups:
                groups[group][name] = arrays[key]
            elif group in ("out", "grad"):
                expected[key] = arrays[key]
        meta = json.loads(str(arrays["meta"]))
    return Case(path.stem, groups["in"], groups["param"], groups["rand"], expected, meta)


def cases(component: str) -> list[Any]:
    """All cases of `component` as pytest parameters.

    From the folder in the environment variable `KDSEG_GOLDEN`, which may hold other cases of the same format and lack
    some components (their tests are skipped); without it from this folder, which must not lack any.
    """
    other = os.environ.get("KDSEG_GOLDEN")
    folder = Path(other) if other else HERE
    if not folder.is_dir():
        raise NotADirectoryError(f"KDSEG_GOLDEN: {folder} is not a folder")
    paths = sorted(folder.glob(f"{component}__*.npz"))
    if paths:
        return [pytest.param(load(path), id=path.stem) for path in paths]
    if other:
        reason = f"no golden case of {component} in {folder}"
        return [pytest.param(None, id=component, marks=pytest.mark.skip(reason=reason))]
    raise FileNotFoundError(f"no golden case of {component} in {folder}")


def check(case: Case, outputs: Mapping[str, Any], leaves: Mapping[str, Tensor] | None = None) -> None:
    """Assert that `outputs` and their gradients equal the recorded ones within the recorded tolerances.

    Args:
        case: what was recorded.
        outputs: by name without `out.`. All that were recorded must be there, but for those that document a released
            behaviour other than the intended one (`released` in their name).
        leaves: what gradients were taken of, by name. All that have a recorded gradient must be there.
    """
    actual = {f"out.{name}": value for name, value in outputs.items()}
    for key, gradient in case.meta.get("grads", {}).items():
        if f"out.clean_{key.replace('.', '_')}" in case.expected:
            continue  # the released gradient is not what was meant; the clean one is among the outputs
        (actual[key],) = torch.autograd.grad(
            actual[gradient["of"]], [(leaves or {})[gradient["wrt"]]], retain_graph=True, allow_unused=True
        )
    missing = {key for key in case.expected.keys() - actual.keys() if "released" not in key}
    assert not missing, f"{case.name}: not computed: {sorted(missing)}"
    for key in sorted(case.expected.keys() & actual.keys()):
        compare(case, key, actual[key])


def compare(case: Case, key: str, value: Any) -> None:
    """Assert that `value` equals what was recorded at `key`: integers exactly, floats within the tolerance."""
    expected = case.expected[key]
    value = np.zeros_like(expected) if value is None else torch.as_tensor(value).detach().cpu().numpy()
    note(f"{case.name} {key}", value)
    assert value.shape == expected.shape, f"{case.name} {key}: shape {value.shape}, expected {expected.shape}"
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(value, expected, err_msg=f"{case.name} {key}")
        return
    # assert_allclose also asserts that NaN and infinities are at the same places.
    np.testing.assert_allclose(
        value.astype(np.float64),
        expected.astype(np.float64),
        rtol=0,
        atol=case.tolerance(key),
        err_msg=f"{case.name} {key}",
    )
