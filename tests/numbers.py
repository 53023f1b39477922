"""Numbers to the last bit: what a change that must change none of them is compared by (CONTRIBUTING.md).

Where `KDSEG_NUMBERS` names a file, the conformance suite and the golden tests append a line to it for every loss,
gradient and golden value: test, number of the call, name, and a hash of the value's bytes. Sorted, two such files of
the same machine can be compared by `diff`.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

FILE = os.environ.get("KDSEG_NUMBERS")
_calls: Counter[str] = Counter()


def note(name: str, value: Any) -> None:
    """Append what `name` is in the test that runs; does nothing if no file was asked for."""
    if FILE is None:
        return
    test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
    _calls[test] += 1
    array = value.detach().cpu().float().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    digest = hashlib.sha256(str((array.shape, array.dtype)).encode() + array.tobytes()).hexdigest()[:16]
    with Path(FILE).open("a", encoding="utf-8") as file:
        file.write(f"{test} {_calls[test]:03} {name} {digest}\n")
