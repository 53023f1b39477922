"""What `kdseg doctor --profile` finds: would Slurm take such a job, and does a node see what this machine sees?

A small job with the profile's account, partition and GPUs runs through srun; all else follows from what it says.
"""

from __future__ import annotations

import getpass
import json
import shlex
import subprocess
import sys
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

import benchmark
from benchmark.core.errors import KdsegError
from benchmark.doctor.findings import Finding, FindingState, pip
from slurm import queue
from slurm.arrays import Array
from slurm.profiles import Resources, load_profile
from slurm.submissions import folder, own_folder
from slurm.submit import SubmitRequest, parameters, test

WAIT_S = 120
"""Seconds that the small job may wait for a node."""
PROBE = """
import json, pathlib, sys
facts = {"python": sys.executable}
try:
    facts["token"] = pathlib.Path(sys.argv[1], "token").read_text()
    pathlib.Path(sys.argv[1], "answer").write_text(facts["token"])
except OSError as error:
    facts["folder_fault"] = str(error)
try:
    import benchmark, torch
    facts |= {"code": benchmark.__path__[0], "torch": torch.__version__, "gpus": torch.cuda.device_count()}
    facts["gpu"] = torch.cuda.get_device_name(0) if facts["gpus"] else ""
except Exception as error:
    facts["import_fault"] = f"{type(error).__name__}: {error}"
print("@kdseg", json.dumps(facts), flush=True)
"""


def examine_profile(name: str, work_dir: Path) -> list[Finding]:
    """All findings about a profile; the later ones need a node and are left out where the earlier ones fail."""
    profile = load_profile(name)
    resources = Resources(**{key: getattr(profile, key) for key in Resources.model_fields})
    try:
        limits = queue.limits()
    except KdsegError as error:
        return [Finding("Slurm", FindingState.MISSING, str(error), "kdseg doctor")]
    findings = [_partition(resources), *_account(resources)]
    if any(finding.state is not FindingState.OK for finding in findings):
        return findings
    directory = own_folder(own_folder(folder(work_dir.resolve())) / f"doctor.{uuid.uuid4().hex[:8]}")
    batch = SubmitRequest("doctor", name, work_dir.resolve(), limits, [], {}, {})
    try:
        answer = test(batch, Array((), resources, 1), directory.name)
        findings.append(Finding("request", FindingState.OK, answer.removeprefix("sbatch: ")))
        return [*findings, *node(resources, directory)]
    except KdsegError as error:
        mend = f"sinfo -o '%P %l %c %m %G %f'  # what the cluster has; then change profile {name}"
        return [*findings, Finding("request", FindingState.BROKEN, str(error), mend)]
    finally:
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()


def node(resources: Resources, directory: Path) -> list[Finding]:
    """What a job on a node finds: the shared folder, the same Python and code, its GPUs."""
    token = uuid.uuid4().hex
    (directory / "token").write_text(token)
    try:
        done = subprocess.run(
            command(resources, directory),
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=WAIT_S,
            cwd=directory,
        )
    except subprocess.TimeoutExpired:
        detail = f"no node took a small job within {WAIT_S} s"
        return [Finding("node", FindingState.BROKEN, detail, "squeue --me --start")]
    facts = read_facts(done.stdout)
    if not facts:
        message = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return [
            Finding("node", FindingState.BROKEN, f"a small job failed: {message}", f"srun {sys.executable} --version")
        ]
    answer = directory / "answer"
    returned = answer.is_file() and answer.read_text() == token
    return [shared_folder(facts, token, returned, directory), same_python(facts), gpus(facts, resources)]


def command(resources: Resources, directory: Path) -> list[str]:
    """The srun command of the small job: one task, the profile's setup, our Python."""
    wanted = parameters(resources.model_copy(update={"nodes": 1, "tasks_per_node": 1}), "kdseg-doctor", 1, "")
    options = {key: wanted.get(key) for key in ("partition", "account", "qos", "constraint", "mem", "gpus_per_node")}
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in options.items() if value]
    shell = "\n".join([*resources.setup, 'exec "$@"'])
    script = ["bash", "-c", shell, "kdseg", sys.executable, "-c", PROBE, str(directory)]
    return ["srun", *flags, "--ntasks=1", "--time=5", *script]


def read_facts(text: str) -> dict[str, Any]:
    """What the probe said, among whatever else a job prints."""
    lines = [line for line in text.splitlines() if line.startswith("@kdseg ")]
    return json.loads(lines[-1].removeprefix("@kdseg ")) if lines else {}


def shared_folder(facts: dict[str, Any], token: str, returned: bool, directory: Path) -> Finding:
    """The work directory must be one folder, here and on the node."""
    if facts.get("token") == token and returned:
        return Finding("shared folder", FindingState.OK, f"{directory.parent} is the same folder on the node")
    why = facts.get("folder_fault", "what the node writes there does not arrive here")
    mend = f"df {shlex.quote(str(directory.parent))}  # choose a --work-dir on a file system that nodes share"
    return Finding("shared folder", FindingState.BROKEN, why, mend)


def same_python(facts: dict[str, Any]) -> Finding:
    """The node must import the same kdseg and torch."""
    if fault := facts.get("import_fault"):
        return Finding(
            "Python on a node", FindingState.BROKEN, fault, pip("install -r requirements.txt") + "  # on a shared disk"
        )
    here = (sys.executable, benchmark.__path__[0], version("torch"))
    there = (facts["python"], facts["code"], facts["torch"])
    if [str(Path(part)) for part in here[:2]] != [str(Path(part)) for part in there[:2]]:
        detail = f"{there[0]} with {there[1]}, here {here[0]} with {here[1]}"
        return Finding("Python on a node", FindingState.BROKEN, detail, "install kdseg below a folder that nodes share")
    return Finding("Python on a node", FindingState.OK, f"{there[0]}, torch {there[2]}")


def gpus(facts: dict[str, Any], resources: Resources) -> Finding:
    """The GPUs that the profile asks for must be usable by torch."""
    wanted, there = resources.gpus_per_node, facts.get("gpus", 0)
    if not wanted:
        return Finding("GPU on a node", FindingState.OPTIONAL, "the profile asks for none (gpus_per_node)")
    if there >= wanted:
        return Finding("GPU on a node", FindingState.OK, f"{there} × {facts['gpu']}")
    detail = f"torch {facts.get('torch', '')} sees {there} of {wanted}: a build without CUDA, or no driver there"
    return Finding("GPU on a node", FindingState.BROKEN, detail, pip("install --force-reinstall torch  # with CUDA"))


def _partition(resources: Resources) -> Finding:
    """The partition must exist and be up."""
    if resources.partition is None:
        return Finding("partition", FindingState.OK, "the cluster's default")
    try:
        up = queue.call("sinfo", "-h", "-p", resources.partition, "-o", "%a %D %G").split()
    except KdsegError as error:
        return Finding("partition", FindingState.BROKEN, str(error), "sinfo -s")
    if not up or up[0] != "up":
        state = f"is {up[0]}" if up else "is not there"
        return Finding("partition", FindingState.MISSING, f"{resources.partition} {state}", "sinfo -s")
    return Finding("partition", FindingState.OK, f"{resources.partition}: {up[1]} nodes")


def _account(resources: Resources) -> list[Finding]:
    """The account must be one of this user's; where there is no accounting, any passes."""
    if resources.account is None:
        return []
    mend = f"sacctmgr show assoc user={getpass.getuser()} format=account,partition,qos"
    try:
        rows = queue.call("sacctmgr", "-nP", "show", "assoc", f"user={getpass.getuser()}", "format=account").split()
    except KdsegError:
        return [Finding("account", FindingState.OK, f"{resources.account} (this cluster keeps no accounts)")]
    if resources.account not in rows:
        detail = f"{resources.account} is not yours; yours: {', '.join(sorted(set(rows))) or 'none'}"
        return [Finding("account", FindingState.MISSING, detail, mend)]
    return [Finding("account", FindingState.OK, resources.account)]
