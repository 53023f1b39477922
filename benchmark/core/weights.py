"""Weight files: found by name or by sha256; known ones that are not here are fetched once, and checked."""

from __future__ import annotations

import hashlib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from benchmark.core.errors import KdsegError
from benchmark.core.files import file_sha256, make_folder, write_bytes
from benchmark.core.schema import read_yaml

WEIGHTS_VARIABLE = "KDSEG_WEIGHTS"
"""The environment variable that names the folder of weight files."""
KNOWN = Path(__file__).with_name("weights.yaml")
TIMEOUT_S = 20.0


def fetch(name: str, folder: Path) -> Path:
    """Download the known weight file `name` into `folder`.

    Raises:
        KdsegError: it cannot be reached (as on a machine without network), or is another file than its name says.
    """
    url = known()[name]
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as stream:
            content = stream.read()
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise KdsegError(f"weights {name}: cannot be downloaded ({reason}); put {url} into {folder} by hand") from None
    digits = re.search(r"-([0-9a-f]{8})\.pth$", name)
    if digits and not hashlib.sha256(content).hexdigest().startswith(digits[1]):
        raise KdsegError(f"weights {name}: what {url} gave is another file (sha256 does not begin with {digits[1]})")
    make_folder(folder)
    write_bytes(folder / name, content)
    return folder / name


def known() -> dict[str, str]:
    """File name -> URL."""
    return read_yaml(KNOWN)


def register(files: dict[str, str], path: Path) -> str:
    """Note a file's path in `files` under its sha256, which is returned: runs name files by content."""
    digest = file_sha256(path)
    files[digest] = str(path)
    return digest


def by_sha256(files: Mapping[str, str], sha256: str) -> Path:
    """The path that `files` has for a sha256, checked to hold that content still."""
    path = Path(files.get(sha256, ""))
    if not path.is_file() or file_sha256(path) != sha256:
        raise KdsegError(f"{path}: is gone or changed since the run was planned (sha256 {sha256[:12]}…); plan it again")
    return path


def find_weights(file: str, weights_dir: Path | None) -> Path:
    """The path of a weight file: as given, or below `weights_dir` or the folder that KDSEG_WEIGHTS names.

    One that is in none of them, but known (`core/weights.yaml`), is downloaded into the first of the folders.
    """
    folders = [folder for folder in (weights_dir, os.environ.get(WEIGHTS_VARIABLE)) if folder]
    candidates = [Path(file), *(Path(folder) / file for folder in folders)]
    file_path = next((path for path in candidates if path.is_file()), None)
    if file_path is None and folders and file in known():
        return fetch(file, Path(folders[0])).resolve()
    if file_path is None:
        where = ", ".join(str(path) for path in candidates)
        raise KdsegError(
            f"weights {file}: no such file (looked at {where}); pass --weights-dir or set {WEIGHTS_VARIABLE}"
        )
    return file_path.resolve()
