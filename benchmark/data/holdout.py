"""A fixed part of the training images to choose hyper-parameters on, so that validation images choose nothing.

`data.select_on: train-holdout` names the rule below and is part of the run id: another rule must get another name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import groupby

from benchmark.core.errors import KdsegError
from benchmark.spec.tuning import VALUE

SHARE = 0.15
"""At most this share of the images is held out."""

FEW = 10
"""With fewer blocks of dependent images than this, stretches of each are held out instead of whole blocks."""

GAP = 5
"""Images on the training side of a stretch that are in neither part: neighbours look alike."""


def cut(names: Sequence[str], block: Callable[[str], str]) -> tuple[list[str], list[str]]:
    """Cut training images in two: (those to train on, those held out), each in the order given.

    Images that depend on each other are one block. Where there are many blocks (Cityscapes: cities; else single
    images), whole ones are held out: in the order of their names' sha256, each that keeps the held-out part within
    `SHARE` of all images. Where there are few (CamVid: drives), the last `SHARE` of the images of each are held out, by
    name, and the `GAP` images before them are in neither part.

    Args:
        names: of the training images, all different.
        block: what the images that depend on an image have in common, as `Dataset.block` says it.

    Raises:
        KdsegError: too few images for two parts.
    """
    blocks = {key: list(group) for key, group in groupby(sorted(names, key=lambda name: (block(name), name)), block)}
    held: set[str] = set()
    gap: set[str] = set()
    if len(blocks) < FEW:
        for group in blocks.values():
            start = len(group) - int(SHARE * len(group))
            held.update(group[start:])
            gap.update(group[max(0, start - GAP) : start] if start < len(group) else ())
    else:
        for key in sorted(blocks, key=lambda key: hashlib.sha256(key.encode()).hexdigest()):
            if len(held) + len(blocks[key]) <= SHARE * len(names):
                held.update(blocks[key])
    rest = [name for name in names if name not in held and name not in gap]
    if not held or not rest:
        raise KdsegError(f"{VALUE}: {len(names)} training images are too few to hold some of them out")
    return rest, [name for name in names if name in held]
