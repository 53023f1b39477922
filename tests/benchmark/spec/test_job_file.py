import json

import pytest

from benchmark.core.errors import KdsegError
from benchmark.spec.job_file import JOB_SCHEMA, read_job, write_job
from benchmark.spec.runs import Execution


@pytest.fixture
def job(world, teacher):
    return world.job([world.run("kd", teacher=teacher), world.run("student")], threads=2)


def test_a_job_comes_back_as_it_was(job, tmp_path):
    write_job(tmp_path / "job.json", job)
    assert read_job(tmp_path / "job.json") == job


@pytest.mark.parametrize("lacking", [["execution"], ["off_protocol", "files"], ["data_root", "teacher_miou"]])
def test_what_an_older_file_lacks_has_its_default(job, tmp_path, lacking):
    file = tmp_path / "job.json"
    write_job(file, job)
    content = json.loads(file.read_text())
    for field in lacking:
        del content["job"][field]
    file.write_text(json.dumps(content))
    found = read_job(file)
    assert found.runs == job.runs
    assert "execution" not in lacking or found.execution == Execution()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        ("", "not readable as JSON"),
        ('{"job_schema": 1, "job": {"runs": [', "not readable as JSON"),
        ("[1, 2]", "is no job file"),
        ('{"runs": [], "work_dir": "w"}', "is no job file"),
        ('{"job_schema": "1", "job": {}}', "is no job file"),
        ('{"job_schema": 1}', "is no job file"),
        (
            json.dumps({"job_schema": JOB_SCHEMA + 1, "job": {"new": 1}}),
            f"is a job of a newer kdseg (job_schema {JOB_SCHEMA + 1}; this one reads up to {JOB_SCHEMA})",
        ),
        ('{"job_schema": 1, "job": {"runs": [], "work_dir": "w", "chort": 1}}', "unknown key 'chort'"),
        ('{"job_schema": 1, "job": {"runs": []}}', "work_dir"),
        ('{"job_schema": 1, "job": {"runs": 3, "work_dir": "w"}}', "runs"),
    ],
)
def test_what_is_no_job_is_named_in_one_line(tmp_path, content, said):
    file = tmp_path / "job.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(KdsegError) as error:
        read_job(file)
    assert str(file) in str(error.value) and said in str(error.value) and "\n" not in str(error.value)


def test_every_truncation_is_refused(job, tmp_path):
    file = tmp_path / "job.json"
    write_job(file, job)
    whole = file.read_bytes().rstrip()
    for size in range(0, len(whole), 7):
        file.write_bytes(whole[:size])
        with pytest.raises(KdsegError, match="not readable as JSON"):
            read_job(file)
