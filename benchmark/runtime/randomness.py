"""Stateless randomness: every random stream is re-seeded from what it is for, so nothing has to be saved.

A stream is named by (seed, purpose, ...): a student's dropout at iteration 7 draws the same numbers alone, in any
cohort, after a resume, and with any number of data workers.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed that depends on `key` alone (not on Python's salted `hash`)."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1


def begin(*key: int | str) -> None:
    """Let torch, numpy and python draw from the beginning of the stream `key` from now on."""
    seed = derive_seed(*key)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def stream(*key: int | str) -> Iterator[None]:
    """Within it, torch, numpy and python draw from the stream `key`; afterwards from where they were before."""
    outer = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    begin(*key)
    try:
        yield
    finally:
        random.setstate(outer[0])
        np.random.set_state(outer[1])
        torch.set_rng_state(outer[2])
        if cuda is not None:
            torch.cuda.set_rng_state(cuda)
