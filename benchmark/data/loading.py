"""Loads a picture and its labels from files; whatever is wrong with them becomes one line that names the file."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS
from PIL import Image, UnidentifiedImageError

from benchmark.core.errors import KdsegError
from benchmark.spec.definitions import IGNORE

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_INDEXED = ("1", "L", "P")  # PIL's modes of one 8-bit number a pixel; a palette's numbers are the labels


@TRANSFORMS.register_module()
class LoadSample(BaseTransform):
    """Picture (BGR, H×W×3) and labels (H×W, uint8), the same as mmcv's and mmseg's two loaders give, but checked.

    Args:
        dataset: its name, for errors.
        classes: how many it has.
        reduce_zero_label: on disk 0 is unlabelled and the classes are 1 to `classes`.
        label_ids: the numbers of other label files of the set, which may have been taken for these.
    """

    def __init__(self, dataset: str, classes: int, reduce_zero_label: bool, label_ids: tuple[int, ...] = ()) -> None:
        self.dataset, self.classes, self.reduce_zero_label = dataset, classes, reduce_zero_label
        self.label_ids = label_ids

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Load `img_path` and `seg_map_path`.

        Raises:
            KdsegError: a file that cannot be read, is cut off or corrupt; labels of another size than the picture,
                not one 8-bit number a pixel, or with values that are no class.
        """
        image_path, label_path = Path(results["img_path"]), Path(results["seg_map_path"])
        image, labels = read_image(image_path), self._read_labels(label_path)
        if labels.shape != image.shape[:2]:
            sizes = [f"{width}x{height}" for height, width in (labels.shape, image.shape[:2])]
            raise KdsegError(f"label {label_path}: is {sizes[0]} pixels, but its image {image_path} is {sizes[1]}")
        results["img"], results["gt_seg_map"] = image, labels
        results["img_shape"] = results["ori_shape"] = labels.shape
        results["seg_fields"].append("gt_seg_map")
        return results

    def _read_labels(self, path: Path) -> np.ndarray:
        labels = read_labels(path)
        last = self.classes if self.reduce_zero_label else self.classes - 1
        strays = np.unique(labels[(labels > last) & (labels != IGNORE)]).tolist()
        if strays:
            values = ", ".join(map(str, strays[:5])) + (", …" if len(strays) > 5 else "")
            message = (
                f"label {path}: holds {values}; the labels of {self.dataset} are 0 to {last}, and {IGNORE} for void"
            )
            if set(strays) <= set(range(max(self.label_ids, default=0) + 1)) and not (labels == IGNORE).any():
                message += f"; these look like labelIds: remove them, then `kdseg data prepare {self.dataset}`"
            raise KdsegError(message)
        if self.reduce_zero_label:
            labels = np.where((labels == 0) | (labels == IGNORE), IGNORE, labels - 1).astype(np.uint8)
        return labels


def read_image(path: Path) -> np.ndarray:
    """The picture in a file: BGR, H×W×3, uint8.

    Raises:
        KdsegError: it cannot be read, is cut off or corrupt.
    """
    return _decode("image", path, _checked_bytes("image", path), flag="color", backend="cv2")


def read_labels(path: Path) -> np.ndarray:
    """The labels in a file as they are on disk: H×W, uint8.

    Raises:
        KdsegError: it cannot be read, is cut off or corrupt, or is not one 8-bit number a pixel.
    """
    data = _checked_bytes("label", path)
    try:
        mode = Image.open(io.BytesIO(data)).mode
    except Exception as error:
        raise _unreadable("label", path, error) from None
    if mode not in _INDEXED:
        kind = "colours" if mode.startswith("RGB") else "16-bit numbers" if mode.startswith("I") else "other values"
        raise KdsegError(
            f"label {path}: holds {kind} (mode {mode}); one 8-bit class number a pixel is needed (mode L or P)"
        )
    return _decode("label", path, data, flag="unchanged", backend="pillow").astype(np.uint8)


def _checked_bytes(kind: str, path: Path) -> bytes:
    """A file's bytes, complete as far as its format can tell: PNG has checksums, JPEG only an end marker."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise KdsegError(f"{kind} {path}: cannot be read: {error.strerror}") from None
    fault = "is empty" if not data else None
    if data.startswith(_PNG):
        fault = _png_fault(data)
    # The last scan must end. A marker cannot occur inside a scan; a thumbnail before it or junk after it do no harm.
    elif data.startswith(_JPEG) and data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\xda"):
        fault = "is cut off (its JPEG data have no end)"
    if fault:
        raise KdsegError(f"{kind} {path}: {fault}; replace it by a good copy")
    return data


def _png_fault(data: bytes) -> str | None:
    offset, kind = len(_PNG), b""
    try:
        while kind != b"IEND":
            length, kind = struct.unpack_from(">I4s", data, offset)
            body = data[offset + 4 : offset + 8 + length]
            (checksum,) = struct.unpack_from(">I", data, offset + 8 + length)
            # Decoders need the critical chunks only, those with a capital letter first.
            if kind[:1].isupper() and zlib.crc32(body) != checksum:
                return "is corrupt (a PNG checksum is wrong)"
            offset += 12 + length
    except struct.error:
        return "is cut off (its PNG data have no end)"
    return None


def _decode(kind: str, path: Path, data: bytes, flag: str, backend: str) -> np.ndarray:
    try:
        pixels = mmcv.imfrombytes(data, flag=flag, backend=backend)
    except Exception as error:  # decoders raise anything: cv2.error, SyntaxError, struct.error, ...
        raise _unreadable(kind, path, error) from None
    if pixels is None:
        raise _unreadable(kind, path, UnidentifiedImageError())
    return pixels


def _unreadable(kind: str, path: Path, reason: object) -> KdsegError:
    message = "no known picture format, or corrupt" if isinstance(reason, UnidentifiedImageError) else str(reason)
    first = (message.strip().splitlines() or [type(reason).__name__])[0]
    return KdsegError(f"{kind} {path}: cannot be decoded: {first}; replace it by a good copy")
