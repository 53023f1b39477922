"""Weight files that are not here yet: known ones are fetched once into the weights folder, and checked."""

from __future__ import annotations

import hashlib
import re
import urllib.error
import urllib.request
from pathlib import Path

from benchmark.errors import KdsegError
from benchmark.files import make_folder, write_bytes
from benchmark.frozen import read_yaml

KNOWN = Path(__file__).parent / "definitions" / "weights.yaml"
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
