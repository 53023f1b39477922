"""Labels as PNG files: grey values, or the same with the colours of their classes."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

Palette = Sequence[Sequence[int]]


def label_png(labels: np.ndarray, palette: Palette = ()) -> bytes:
    """A PNG file of labels (H, W), uint8; with a palette of (red, green, blue) a class it has colours (mode P)."""
    picture = Image.fromarray(labels)
    if palette:
        colours = [value for colour in palette for value in colour]
        picture.putpalette(colours + [0] * (768 - len(colours)))  # turns mode L into P; the indices stay
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
