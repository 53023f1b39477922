import sys
from importlib.metadata import version

import pytest

import benchmark
from benchmark.doctor.findings import FindingState
from slurm.doctor import command, gpus, read_facts, same_python, shared_folder
from slurm.profiles import Resources

HERE = {"python": sys.executable, "code": benchmark.__path__[0], "torch": version("torch"), "gpus": 1, "gpu": "A100"}


def test_what_a_node_says_is_found_among_what_else_a_job_prints():
    text = 'module loaded\n@kdseg {"python": "a"}\nsrun: bye\n'
    assert read_facts(text) == {"python": "a"} and read_facts("nothing") == {}


@pytest.mark.parametrize(
    ("facts", "returned", "state"),
    [
        ({"token": "t"}, True, FindingState.OK),
        ({"token": "t"}, False, FindingState.BROKEN),
        ({"folder_fault": "no"}, False, FindingState.BROKEN),
    ],
)
def test_the_folder_is_shared_if_both_ways_arrive(tmp_path, facts, returned, state):
    found = shared_folder(facts, "t", returned, tmp_path)
    assert found.state is state and bool(found.mend) is (state is FindingState.BROKEN)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, FindingState.OK),
        ({"python": "/usr/bin/python3"}, FindingState.BROKEN),
        ({"import_fault": "no torch"}, FindingState.BROKEN),
    ],
)
def test_python_must_be_the_same(changes, state):
    assert same_python(HERE | changes).state is state


@pytest.mark.parametrize(
    ("wanted", "state"), [(0, FindingState.OPTIONAL), (1, FindingState.OK), (2, FindingState.BROKEN)]
)
def test_gpus_must_be_as_many_as_asked_for(wanted, state):
    assert gpus(HERE, Resources(gpus_per_node=wanted)).state is state


def test_nothing_of_a_profile_reaches_a_shell_but_its_setup(tmp_path):
    words = command(Resources(partition="a; rm -rf ~", setup=("module load cuda",), gpus_per_node=2), tmp_path)
    assert words[:3] == ["srun", "--partition=a; rm -rf ~", "--gpus-per-node=2"]
    assert words[words.index("-c") + 1] == 'module load cuda\nexec "$@"'
