"""`kdseg doctor`: looks at this machine, and says what it can do and how to mend what is missing.

PyTorch, OpenCV and mmsegmentation are tried in processes of their own: a broken one is a finding, not our end.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.core.errors import KdsegError, unknown
from benchmark.core.weights import WEIGHTS_VARIABLE
from benchmark.doctor import checks
from benchmark.doctor.findings import Finding, FindingState, text
from benchmark.spec import definitions

PROBES = {
    "torch": """
import torch
say(version=torch.__version__, cuda=torch.version.cuda)
torch.ones(2, 2).mm(torch.ones(2, 2)).numpy()
say(usable=True)
for i in range(torch.cuda.device_count()):
    torch.ones(1, device=f"cuda:{i}").sum().item()
    say(gpus=[torch.cuda.get_device_name(j) for j in range(i + 1)], bf16=torch.cuda.is_bf16_supported())
""",
    "cv2": "import cv2; say(version=cv2.__version__)",
    "toolbox": """
import mmengine.runner; say(mmengine=True)
import mmcv.transforms; say(mmcv=True)
import mmseg.datasets, mmseg.models; say(mmseg=True)
""",
}
PRELUDE = """
import json, sys
def say(**facts): print("\\n@kdseg", json.dumps(facts), flush=True)
sys.excepthook = lambda kind, error, trace: say(fault=f"{kind.__name__}: {error}".splitlines()[0])
"""
STYLE = {
    FindingState.OK: "green",
    FindingState.MISSING: "bold red",
    FindingState.BROKEN: "bold red",
    FindingState.OPTIONAL: "yellow",
}


def examine(work_dir: Path, roots: Mapping[str, Path | None], weights_dir: Path | None) -> list[Finding]:
    """All findings about this machine."""
    with ThreadPoolExecutor() as pool:
        facts = dict(zip(PROBES, pool.map(probe, PROBES.values()), strict=True))
    base = [checks.python(), checks.torch(facts["torch"]), checks.gpu(facts["torch"], bool(shutil.which("nvidia-smi")))]
    base.append(checks.opencv(facts["cv2"], installed))
    unusable = next((f.name for f in base if f.state in (FindingState.MISSING, FindingState.BROKEN)), "")
    return [
        *base,
        *checks.toolbox(facts["toolbox"], installed, unusable),
        checks.package("submitit", "sweeps on Slurm need it", installed, needed=True),
        checks.package("wandb", "runs log to files without it", installed, needed=False),
        checks.cpu(_cores(), os.environ.get("OMP_NUM_THREADS")),
        checks.memory(text("/proc/meminfo"), text("/sys/fs/cgroup/memory.max")),
        checks.disk(work_dir),
        checks.git(),
        checks.slurm(),
        checks.latex(),
        checks.chromium(),
        *(checks.data(definitions.dataset(name), root) for name, root in roots.items()),
        checks.weights(weights_dir),
    ]


def healthy(findings: list[Finding]) -> bool:
    """Whether all that is needed is there."""
    return all(finding.state in (FindingState.OK, FindingState.OPTIONAL) for finding in findings)


def data_roots(pairs: list[str]) -> dict[str, Path | None]:
    """Every dataset that has files, with the folder that `NAME=DIR` gives it.

    Raises:
        KdsegError: not NAME=DIR, an unknown dataset, or one without files.
    """
    names = [name for name in definitions.names("datasets") if definitions.dataset(name).layout == "files"]
    roots: dict[str, Path | None] = dict.fromkeys(names)
    for pair in pairs:
        name, equals, folder = pair.partition("=")
        if not equals or not folder:
            raise KdsegError(f"--data-root: {pair!r} is not NAME=DIR, such as {names[0]}=DIR")
        if name not in roots:
            raise unknown("dataset with files", name, names, "--data-root")
        roots[name] = Path(folder).expanduser()
    return roots


def weights_folder(folder: Path | None) -> Path | None:
    """The folder of weight files: as given, or as the environment names it."""
    named = os.environ.get(WEIGHTS_VARIABLE)
    return folder or (Path(named) if named else None)


def show(findings: list[Finding], console: Console) -> None:
    """Print the findings as a table, and below it the commands, one a line and never broken."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(Text(finding.state, STYLE[finding.state]), finding.name, Text(finding.detail))
    console.print(table)
    groups = {
        "To mend": [f for f in findings if f.state in (FindingState.MISSING, FindingState.BROKEN)],
        "Optional": [f for f in findings if f.state is FindingState.OPTIONAL],
    }
    for title, group in groups.items():
        commands: dict[str, list[str]] = {}
        for finding in group:
            commands.setdefault(finding.mend, []).append(finding.name)
        commands.pop("", None)
        if commands:
            console.print(f"\n{title}", style="bold")
        for command, names in commands.items():
            console.print(Text(f"  # {', '.join(names)}", "dim"))
            console.print(Text(f"  {command}"), soft_wrap=True)
    bad = [finding.name for finding in findings if not healthy([finding])]
    verdict = f"To be mended before anything runs: {', '.join(bad)}" if bad else "All that is needed is there."
    console.print(f"\n{verdict}", style="bold red" if bad else "bold green")


def installed(distribution: str) -> str | None:
    """The version of an installed distribution, None if it is not there."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def probe(code: str, timeout_s: float = 120) -> dict[str, Any]:
    """The facts that `code` says in a Python of its own; `fault` is why it did not get to its end."""
    facts: dict[str, Any] = {}
    try:
        # -P: what lies in the current folder must not stand in for a package.
        command = [sys.executable, "-P", "-c", PRELUDE + code]
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, stdin=subprocess.DEVNULL)
        out, status = done.stdout, done.returncode
    except subprocess.TimeoutExpired as error:
        out, status = error.stdout or b"", 0
        facts["fault"] = f"no answer within {timeout_s:g} s"
    if status < 0:
        facts["fault"] = f"killed: {signal.strsignal(-status)}"
    elif status:
        facts["fault"] = f"ended with status {status}"
    for line in out.decode(errors="replace").splitlines():
        if line.startswith("@kdseg "):
            facts |= json.loads(line.removeprefix("@kdseg "))
    return facts


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
