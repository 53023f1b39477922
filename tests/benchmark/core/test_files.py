import os

import pytest

from benchmark.core.errors import KdsegError
from benchmark.core.files import replacing, write_json
from benchmark.core.weights import by_sha256, register


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(file, {"a": float("nan")})
    with pytest.raises(TypeError), replacing(file) as stream:
        stream.write("text, where bytes belong")
    assert file.read_text() == '{\n "a": 1\n}\n'
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(KdsegError, match=r"none/a\.json: cannot be written: No such file or directory"):
        write_json(tmp_path / "none" / "a.json", {})


def test_files_are_found_by_content_and_a_changed_one_is_refused(tmp_path):
    file, files = tmp_path / "w.pth", {}
    file.write_bytes(b"weights")
    digest = register(files, file)
    assert by_sha256(files, digest) == file
    file.write_bytes(b"other")
    with pytest.raises(KdsegError, match="gone or changed"):
        by_sha256(files, digest)
