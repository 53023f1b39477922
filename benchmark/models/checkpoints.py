"""Reading and writing weights. Reading never runs code from the file."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from numpy._core import multiarray
from torch import Tensor, nn

from benchmark.core.errors import KdsegError
from benchmark.core.files import write_bytes


def _history_method(owner: Any, name: str) -> Any:
    """Stands in for `getattr`, by which a pickled HistoryBuffer names its own statistics, and for nothing else."""
    if owner is not HistoryBuffer or name not in HistoryBuffer._statistics_methods:
        raise UnpicklingError(f"Unsupported attribute {name} of {owner}")
    return getattr(owner, name)


_HARMLESS = [
    HistoryBuffer,
    (_history_method, "builtins.getattr"),
    multiarray._reconstruct,
    multiarray.scalar,
    np.ndarray,
    np.dtype,
    *(
        type(np.dtype(kind))
        for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "U", "O")
    ),
]
"""What OpenMMLab's checkpoints hold besides tensors: none of it runs code when it is unpickled."""


def save(file: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    By way of memory: where a disk is full, torch's own writer hides the cause.
    """
    buffer = BytesIO()
    torch.save(content, buffer)
    write_bytes(file, buffer.getbuffer())


def load(file: Path) -> Any:
    """Read a checkpoint onto the CPU.

    Raises:
        KdsegError: it is missing or damaged, or holds something that could run code (which is then not run).
    """
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise KdsegError(f"{file}: no such checkpoint") from None
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        foreign = next((line for line in lines if "GLOBAL" in line or "Unsupported" in line), None)
        if isinstance(error, UnpicklingError) and foreign:
            raise KdsegError(
                f"{file}: refused, nothing was run: it holds more than weights and could run code "
                f"({foreign.strip()[:120]}); save it again as a plain state dict"
            ) from None
        raise KdsegError(f"{file}: not a readable checkpoint, perhaps truncated: {lines[0][:120]}") from None


def load_weights(module: nn.Module, file: Path) -> None:
    """Load a checkpoint's weights strictly into `module`.

    Raises:
        KdsegError: naming how many keys are missing, unexpected or of another shape, and the first of each.
    """
    content = load(file)
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise KdsegError(f"{file}: holds no state dict; expected parameter names with tensors")
    fit(module, state, str(file))


def fit(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load a state dict strictly into `module`; `where` is what messages call it.

    Raises:
        KdsegError: naming how many keys are missing, unexpected or of another shape, and the first of each.
    """
    own = module.state_dict()
    faults = {
        "missing": [key for key in own if key not in state],
        "unexpected": [key for key in state if key not in own],
        "of another shape": [key for key in own if key in state and own[key].shape != state[key].shape],
    }
    if any(faults.values()):
        summary = "; ".join(f"{len(keys)} {fault} (first {keys[0]})" for fault, keys in faults.items() if keys)
        raise KdsegError(f"{where}: does not fit this network: {summary}")
    module.load_state_dict(state)


def load_backbone(backbone: nn.Module, file: Path) -> None:
    """Load initial weights into a backbone: by name where all names agree, else position by position.

    Classification files call their tensors in many ways but keep the order of the network; tensors beyond the
    backbone's own (a last convolution, a classifier) are left out. Half precision becomes single precision.

    Raises:
        KdsegError: a tensor of another shape is met, or the file ends too early.
    """
    content = load(file)
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    own = backbone.state_dict()
    if not isinstance(state, dict):
        raise KdsegError(f"{file}: holds no state dict; expected parameter names with tensors")
    names = list(own) if all(key in state for key in own) else list(state)
    if len(names) < len(own):
        raise KdsegError(f"{file}: has {len(names)} tensors, this backbone needs {len(own)}")
    mapped = OrderedDict()
    for key, name in zip(own, names, strict=False):
        if own[key].shape != state[name].shape:
            raise KdsegError(
                f"{file}: {name} has shape {tuple(state[name].shape)}, "
                f"but {key} of this backbone needs {tuple(own[key].shape)}"
            )
        mapped[key] = state[name].to(own[key].dtype)
    backbone.load_state_dict(mapped)


def weights_hash(module: nn.Module) -> str:
    """The sha256 over names and bits of all parameters and buffers: equal hashes are equal networks."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
