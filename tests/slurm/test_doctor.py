import sys
from importlib.metadata import version

import pytest

import benchmark
from benchmark.doctor.findings import State
from slurm.doctor import command, gpus, read_facts, same_python, shared_folder
from slurm.profiles import Resources

HERE = {"python": sys.executable, "code": benchmark.__path__[0], "torch": version("torch"), "gpus": 1, "gpu": "A100"}


def test_what_a_node_says_is_found_among_what_else_a_job_prints():
    text = 'module loaded\n@kdseg {"python": "a"}\nsrun: bye\n'
    assert read_facts(text) == {"python": "a"} and read_facts("nothing") == {}


@pytest.mark.parametrize(
    ("facts", "returned", "state"),
    [
        ({"token": "t"}, True, State.OK),
        ({"token": "t"}, False, State.BROKEN),
        ({"folder_fault": "no"}, False, State.BROKEN),
    ],
)
def test_the_folder_is_shared_if_both_ways_arrive(tmp_path, facts, returned, state):
    found = shared_folder(facts, "t", returned, tmp_path)
    assert found.state is state and bool(found.mend) is (state is State.BROKEN)


@pytest.mark.parametrize(
    ("changes", "state"),
    [({}, State.OK), ({"python": "/usr/bin/python3"}, State.BROKEN), ({"import_fault": "no torch"}, State.BROKEN)],
)
def test_python_must_be_the_same(changes, state):
    assert same_python(HERE | changes).state is state


@pytest.mark.parametrize(("wanted", "state"), [(0, State.OPTIONAL), (1, State.OK), (2, State.BROKEN)])
def test_gpus_must_be_as_many_as_asked_for(wanted, state):
    assert gpus(HERE, Resources(gpus_per_node=wanted)).state is state


def test_nothing_of_a_profile_reaches_a_shell_but_its_setup(tmp_path):
    words = command(Resources(partition="a; rm -rf ~", setup=("module load cuda",), gpus_per_node=2), tmp_path)
    assert words[:3] == ["srun", "--partition=a; rm -rf ~", "--gpus-per-node=2"]
    assert words[words.index("-c") + 1] == 'module load cuda\nexec "$@"'
