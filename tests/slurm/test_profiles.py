import pytest

from benchmark.core.errors import KdsegError
from benchmark.spec.runs import Execution, Job
from slurm.profiles import Resources, allot, equipped, load_profile, names


def profile(tmp_path, text):
    file = tmp_path / "p.yaml"
    file.write_text(text)
    return load_profile(str(file))


@pytest.mark.parametrize("name", names())
def test_every_profile_that_comes_with_the_suite_is_sound(name):
    assert load_profile(name).timeout_min


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("partiton: gpu", "p.yaml: unknown key 'partiton'; did you mean partition?"),
        ("signal_delay_s: 3600", "p.yaml: signal_delay_s 3600 is not below timeout_min 60"),
        ("methods: {kd: {timeout_min: 1}}", "p.yaml: methods.kd: signal_delay_s 90 is not below timeout_min 1"),
        ("methods: {kdd: {mem_gb: 1}}", "p.yaml: methods: unknown method 'kdd'; did you mean kd"),
        ("methods: {kd: {memory: 1}}", "p.yaml: methods.kd: unknown key 'memory'; did you mean mem_gb?"),
        ("models: {deeplabv3_r11: {}}", "p.yaml: models: unknown model 'deeplabv3_r11'; did you mean deeplabv3_r1"),
        ("cpus_per_task: 0", "p.yaml: cpus_per_task: Input should be greater than 0, got 0"),
        (r'partition: "a\nrm -rf ~"', "p.yaml: partition: String should match pattern"),
        (r'setup: ["a\nb"]', "p.yaml: setup.0: String should match pattern"),
        ('additional_parameters: {"x\\ny": 1}', "p.yaml: additional_parameters"),
    ],
)
def test_a_profile_that_is_wrong_is_one_clear_line(tmp_path, text, line):
    with pytest.raises(KdsegError) as error:
        profile(tmp_path, text)
    assert str(error.value).startswith(line)


def test_unknown_profiles_have_near_matches():
    with pytest.raises(KdsegError, match="--profile: unknown profile 'locl'; did you mean local?"):
        load_profile("locl")
    with pytest.raises(KdsegError, match=r"none\.yaml: no such file"):
        load_profile("none.yaml")


def test_a_job_gets_the_most_that_one_of_its_runs_needs(world, teacher, tmp_path):
    runs = [world.run("kd", teacher=teacher), world.run("cwd", teacher=teacher)]
    jobs = [Job(runs=tuple(runs), work_dir="w"), Job(runs=(runs[0],), work_dir="w")]
    text = "mem_gb: 8\nmethods: {cwd: {mem_gb: 32}}\nmodels: {deeplabv3_tiny: {timeout_min: 90}}"
    both, one = allot(profile(tmp_path, text), jobs, "p")
    assert (both.mem_gb, both.timeout_min, one.mem_gb) == (32, 90, 8)


def test_runs_that_cannot_share_a_job_are_named(world, teacher, tmp_path):
    runs = [world.run("kd", teacher=teacher), world.run("cwd", teacher=teacher)]
    with pytest.raises(KdsegError, match=r"p: runs of one job ask for different partition .* pass --cohort 1"):
        allot(profile(tmp_path, "methods: {cwd: {partition: big}}"), [Job(runs=tuple(runs), work_dir="w")], "p")


def test_gpus_alone_make_one_process_each(tmp_path):
    assert profile(tmp_path, "gpus_per_node: 4\nnodes: 2").tasks == 8
    assert profile(tmp_path, "gpus_per_node: 4\ntasks_per_node: 1").tasks == 1


@pytest.mark.parametrize(
    ("given", "workers", "asked", "expected"),
    [
        ({"gpus_per_node": 1, "cpus_per_task": 8}, None, "auto", ("cuda", 7)),
        ({"gpus_per_node": 1, "cpus_per_task": 8}, 3, "cpu", ("cpu", 3)),
        ({}, None, "auto", ("auto", 0)),
    ],
)
def test_a_job_uses_what_it_gets(given, workers, asked, expected):
    job = Job(runs=(), work_dir="w", execution=Execution(device=asked))
    execution = equipped(job, Resources(**given), workers).execution
    assert (execution.device, execution.workers) == expected
