"""A job as a file: what a launcher hands to the process that trains it, which may be days later and by newer code."""

from __future__ import annotations

from pathlib import Path

from benchmark.core.errors import KdsegError
from benchmark.core.files import write_json
from benchmark.core.schema import parse, read_json
from benchmark.spec.runs import Job

JOB_SCHEMA = 1
"""Version of the file. Raised by hand whenever a field of `Job`, or of a type inside it, is added or changed: older
code then refuses the file in one line. A new field has a default, so that newer code reads files that lack it."""


def write_job(file: Path, job: Job) -> None:
    """Write a job."""
    write_json(file, {"job_schema": JOB_SCHEMA, "job": job.model_dump(mode="json")})


def read_job(file: Path) -> Job:
    """The job in a file.

    Raises:
        KdsegError: the file is missing, truncated, of another program, of a newer version, or has a key too many.
    """
    content = read_json(file)
    version = content.get("job_schema") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or "job" not in content:
        raise KdsegError(f"{file}: is no job file: it has no job_schema and job; submit the sweep again")
    if version > JOB_SCHEMA:
        raise KdsegError(
            f"{file}: is a job of a newer kdseg (job_schema {version}; this one reads up to {JOB_SCHEMA}); "
            "update this one, or submit the sweep again"
        )
    return parse(Job, content["job"], str(file))
