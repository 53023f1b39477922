"""Whatever stands in a file: it is read, or refused with one line; never a traceback, never a silent default."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmark.core.errors import KdsegError
from benchmark.core.schema import parse, read_yaml
from benchmark.records.record import read_record
from benchmark.records.run_directory import Status
from benchmark.spec.runs import SHOWN, Manifest, Run
from benchmark.sweeps.plan import load_sweep, plan_sweep
from tests.benchmark.builders import record, run

ROOT = Path(__file__).parents[2]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
DEMO = read_yaml(ROOT / "slurm" / "sweeps" / "demo.yaml")
RECORD = record(run(), 50.0).model_dump(mode="json")
FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def places(tree, path=()):
    """Every place in a tree of lists and dicts."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def change(tree, path, value, how):
    """A copy of a tree with one place replaced, removed, or given a new neighbour."""
    if not path:
        return value
    tree = copy.deepcopy(tree)
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    if how == "remove":
        del parent[path[-1]]
    elif how == "add" and isinstance(parent, dict):
        parent[f"{path[-1]}_"] = value
    else:
        parent[path[-1]] = value
    return tree


def changed(tree):
    return st.builds(
        change,
        st.just(tree),
        st.sampled_from(sorted(places(tree), key=str)),
        VALUES,
        st.sampled_from(["replace", "remove", "add"]),
    )


def one_line(error):
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@FUZZ
@given(data=st.one_of(VALUES, changed(DEMO)))
def test_a_sweep_file_is_planned_or_refused(data, tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps(data))
    try:
        made = plan_sweep(load_sweep(file))
    except KdsegError as refusal:
        said = str(refusal)
    else:
        said = ""
        assert all(parse(Run, each.model_dump(mode="json"), "run") == each for each in made.manifest.runs)
    assert "\n" not in said


@FUZZ
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_for_a_sweep_file_are_one_line(content, tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_bytes(content)
    with pytest.raises(KdsegError) as error:
        load_sweep(file)
    one_line(error)


@FUZZ
@given(data=changed(RECORD))
def test_a_changed_record_is_refused_or_means_what_it_says(data, tmp_path):
    file = tmp_path / "record.json"
    file.write_text(json.dumps(data))
    try:
        found = read_record(file)
    except KdsegError as refusal:
        said = str(refusal)
    else:
        said = "record.json"
        assert found.model_dump(mode="json", exclude_unset=True) == data  # what is not there has its default
        assert found.id == found.inputs.id
    assert "record.json" in said


@FUZZ
@given(content=st.binary(max_size=60) | VALUES.map(lambda data: json.dumps(data).encode()))
def test_any_bytes_for_a_record_are_refused(content, tmp_path):
    file = tmp_path / "record.json"
    file.write_bytes(content)
    with pytest.raises(KdsegError):
        read_record(file)


@FUZZ
@given(kind=st.sampled_from([Run, Status, Manifest]), data=VALUES)
def test_anything_for_a_run_a_status_or_a_manifest_is_refused(kind, data):
    with pytest.raises(KdsegError):
        parse(kind, data, "file")


@FUZZ
@given(data=changed(RECORD["inputs"]))
def test_a_changed_run_is_refused_or_is_another_run(data):
    try:
        found = parse(Run, data, "run.json")
    except KdsegError:
        return
    data["method"].setdefault("note", "")
    assert found.model_dump(mode="json") == data
    if found != run():
        shown = [setting.model_dump(include=SHOWN) for setting in (found.method, run().method)]
        assert found.id != run().id or shown[0] != shown[1]
