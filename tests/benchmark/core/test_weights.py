from __future__ import annotations

import hashlib
import io
import re
import urllib.error

import pytest

from benchmark.core import weights
from benchmark.core.errors import KdsegError
from benchmark.core.weights import fetch, find_weights, known

CONTENT = b"weights"
NAME = f"some-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


@pytest.fixture
def net(monkeypatch):
    """A network that serves one file, and counts how often it is asked."""
    asked: list[str] = []

    def serve(url, timeout):
        asked.append(url)
        return io.BytesIO(CONTENT)

    monkeypatch.setattr(weights, "known", lambda: {NAME: "https://x/some.pth", "bad-00000000.pth": "https://x/bad"})
    monkeypatch.setattr(weights.urllib.request, "urlopen", serve)
    monkeypatch.delenv("KDSEG_WEIGHTS", raising=False)
    return asked


def test_a_known_file_is_fetched_once_into_the_weights_folder(net, tmp_path) -> None:
    for _ in range(2):
        assert find_weights(NAME, tmp_path / "w").read_bytes() == CONTENT
    assert net == ["https://x/some.pth"]


def test_a_local_file_comes_first(net, tmp_path) -> None:
    (tmp_path / NAME).write_bytes(b"mine")
    assert find_weights(NAME, tmp_path).read_bytes() == b"mine" and not net


def test_another_file_than_its_name_says_is_refused_and_not_kept(net, tmp_path) -> None:
    with pytest.raises(KdsegError, match="another file"):
        find_weights("bad-00000000.pth", tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_network_one_line_names_the_url(net, tmp_path, monkeypatch) -> None:
    def fail(url, timeout):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(weights.urllib.request, "urlopen", fail)
    with pytest.raises(
        KdsegError, match=re.escape("(Name or service not known); put https://x/some.pth into")
    ) as error:
        fetch(NAME, tmp_path)
    assert "\n" not in str(error.value)


def test_without_a_folder_nothing_is_fetched(net) -> None:
    with pytest.raises(KdsegError, match="pass --weights-dir"):
        find_weights(NAME, None)
    assert not net


def test_every_known_file_ends_its_own_url() -> None:
    for name, url in known().items():
        assert url.startswith("https://") and url.endswith(f"/{name}") and re.search(r"-[0-9a-f]{8}\.pth$", name)
