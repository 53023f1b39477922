import json

import pytest

from benchmark.core.errors import KdsegError, unknown
from benchmark.core.schema import Frozen, canonical, content_hash, parse, read_json, read_yaml


class Inner(Frozen):
    depth: int = 0


class Outer(Frozen):
    name: str
    sizes: tuple[int, ...] = ()
    inner: Inner = Inner()
    rate: float = 0.5


def test_parse_accepts_lists_for_tuples_and_integers_for_floats():
    assert parse(Outer, {"name": "a", "sizes": [1, 2], "rate": 1}, "file") == Outer(name="a", sizes=(1, 2), rate=1.0)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"name": "a", "size": [1]}, "file: unknown key 'size'; did you mean sizes?"),
        ({"name": "a", "inner": {"dept": 1}}, "file.inner: unknown key 'dept'; did you mean depth?"),
        ({"sizes": []}, "file: name: Field required"),
        ({"name": 3}, "file: name: Input should be a valid string, got 3"),
        ({"name": "a", "sizes": "12"}, "file: sizes: Input should be a valid array, got '12'"),
        ({"name": "a", "rate": "0.1"}, "file: rate: Input should be a valid number, got '0.1'"),
    ],
)
def test_parse_says_in_one_line_what_is_wrong_and_what_would_be_right(data, line):
    with pytest.raises(KdsegError) as error:
        parse(Outer, data, "file")
    assert str(error.value) == line


@pytest.mark.parametrize("data", [None, [], "text", 3, {"name": float("nan")}, {"name": object()}])
def test_parse_of_anything_else_is_an_error_of_ours(data):
    with pytest.raises(KdsegError):
        parse(Outer, data, "file")


def test_content_hash_ignores_the_order_of_keys_and_nothing_else():
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 1.5})
    assert canonical({"ü": [1, 2]}) == '{"ü":[1,2]}'


def test_yaml_reads_exponents_as_numbers(tmp_path):
    (tmp_path / "a.yaml").write_text("lr: 2e-4\nflag: no\n")
    assert read_yaml(tmp_path / "a.yaml") == {"lr": 2e-4, "flag": "no"}


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "a: [1\n", "\x00", "a: !!python/object/apply:os.system [ls]\n"])
def test_bad_yaml_is_one_line_that_names_the_file(tmp_path, text):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(KdsegError, match=r"bad\.yaml") as error:
        read_yaml(file)
    assert "\n" not in str(error.value)


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(KdsegError, match="no such file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "cut.json").write_text(json.dumps({"a": 1})[:-1])
    with pytest.raises(KdsegError, match=r"cut\.json: not readable as JSON"):
        read_json(tmp_path / "cut.json")


def test_unknown_lists_all_names_where_none_is_near():
    assert str(unknown("method", "xyz", ["kd", "cwd"])) == "unknown method 'xyz'; known: cwd, kd"
