"""Small sweeps on the test cluster: submit one, wait for a moment, disturb it, compare it with the undisturbed one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmark.records.run_directory import RunDirectory
from benchmark.spec.runs import Run
from benchmark.sweeps.plan import load_sweep, plan_sweep
from tests.conftest import World
from tests.slurm.cluster import PATIENCE_S, Cluster

RECIPE = {"data.iterations": 20, "data.crop": [48, 64], "optim.warmup": 0}
PROFILE = {"cpus_per_task": 1, "mem_gb": 1, "timeout_min": 60, "signal_delay_s": 30, "array_parallelism": 2}

INTERVAL = "--checkpoint-interval", "5"

GATE = Path(__file__).parent / "gate"
"""What holds runs; for PYTHONPATH."""

FIRST_STEP = "after resume_5.pth"
"""The first step of a run that can be resumed."""


@dataclass(frozen=True)
class Launch:
    """A sweep with its work directory in a folder, and the cluster that it is submitted to.

    Attributes:
        methods: of the sweep file; its one pair learns from segformer_tiny.
        recipe: changes to RECIPE.
    """

    cluster: Cluster
    folder: Path
    methods: Sequence[Any] = ("student", "kd")
    recipe: tuple[tuple[str, Any], ...] = ()

    @property
    def work_dir(self) -> Path:
        """Where the runs are."""
        return self.folder / "work"

    @property
    def gates(self) -> Path:
        """Where the gates of runs are."""
        return self.folder / "gates"

    @property
    def profile(self) -> Path:
        """The profile of the last submission."""
        return self.folder / "profile.yaml"

    @cached_property
    def sweep(self) -> Path:
        """The sweep file."""
        return _yaml(
            self.folder / "faults.yaml",
            {
                "name": "faults",
                "dataset": "drawn",
                "protocol": "demo",
                "methods": list(self.methods),
                "seeds": [0],
                "pairs": [{"teacher": "segformer_tiny", "student": "resnet_tiny"}],
                "overrides": RECIPE | dict(self.recipe),
            },
        )

    @cached_property
    def runs(self) -> list[Run]:
        """The runs of the sweep, the teacher's first."""
        return list(plan_sweep(load_sweep(self.sweep)).manifest.runs)

    @property
    def last(self) -> Run:
        """One of the runs that need the teacher."""
        return self.runs[-1]

    # Commands --------------------------------------------------------------------------------------------------

    def submit(self, *more: str, code: int = 0, **profile: Any) -> str:
        """`kdseg submit` with PROFILE, changed by `profile`; what it says."""
        return self.kdseg(*self.submission(*more, **profile), code=code)

    def submission(self, *more: str, **profile: Any) -> tuple[str | Path, ...]:
        """The arguments of `submit`."""
        _yaml(self.profile, PROFILE | profile)
        return "submit", self.sweep, "--profile", self.profile, *INTERVAL, *more

    def retry(self, causes: str) -> str:
        """`kdseg retry` of these causes, with the profile of before; what it says."""
        return self.kdseg("retry", self.sweep, "--profile", self.profile, *INTERVAL, "--failed", causes)

    def states(self) -> dict[str, str]:
        """What `kdseg status` says of each run: `failed (error)`, say."""
        process = self.start("status", "faults", "--format", "json", errors=subprocess.DEVNULL)
        rows = json.loads(process.communicate(timeout=PATIENCE_S)[0])
        return {row["run"]: row["state"] + (f" ({row['cause']})" if row["cause"] else "") for row in rows}

    def kdseg(self, *arguments: str | Path, code: int = 0) -> str:
        """What a `kdseg` command says; it must end with this exit code."""
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == code, said
        return said

    def start(
        self, *arguments: str | Path, path: Path | None = None, errors: int = subprocess.STDOUT
    ) -> subprocess.Popen:
        """Start a `kdseg` command; programs of the folder `path` take the place of others with their name."""
        more = {"KDSEG_TEST_GATES": str(self.gates), "PYTHONPATH": _before(GATE, "PYTHONPATH")}
        if path:
            more["PATH"] = _before(path, "PATH")
        return subprocess.Popen(
            [sys.executable, "-m", "benchmark.cli", *map(str, arguments), "--work-dir", str(self.work_dir)],
            env=os.environ | more,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )

    # Where it is -----------------------------------------------------------------------------------------------

    def directory(self, run: Run) -> RunDirectory:
        """The directory of a run."""
        return RunDirectory(self.work_dir, run.id)

    def gate(self, run: Run, moment: str = FIRST_STEP) -> None:
        """Let the next process that trains a run wait at a moment (`gate/sitecustomize.py`); then comes `hold`."""
        self.gates.mkdir(parents=True, exist_ok=True)
        (self.gates / run.id).write_text(moment)

    def hold(self, run: Run) -> int:
        """Stop the process of a run at its gate, so that a fault finds it there, and open the gate; its id."""
        self.cluster.wait(lambda: [*self.gates.glob(f"{run.id}.*")], f"run {run.id} at its gate")
        (place,) = self.gates.glob(f"{run.id}.*")
        pid = int(place.suffix[1:])
        os.kill(pid, signal.SIGSTOP)
        self.cluster.wait(lambda: stopped(pid), "the process to stop")
        place.unlink()
        return pid

    def signalled(self, pid: int) -> None:
        """Wait until Slurm has signalled a held process, and wake it, where Slurm did not."""
        self.cluster.wait(lambda: pending(pid) or not stopped(pid), "a signal from Slurm")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def gone(self, pid: int) -> None:
        """Wait for the end of a process."""
        self.cluster.wait(lambda: not Path(f"/proc/{pid}").exists(), f"the end of process {pid}")

    def job(self) -> str:
        """The id of the one job or element that waits or runs."""
        (job,) = self.cluster.run("squeue", "--noheader", "--array", "--format=%i").split()
        return job

    def nodes(self) -> list[str]:
        """The nodes on which jobs run."""
        return self.cluster.run("squeue", "--noheader", "--states=RUNNING", "--format=%N").split()

    def ended(self) -> None:
        """Wait until no job waits or runs."""
        self.cluster.wait(lambda: not self.cluster.run("squeue", "--noheader"), "the end of all jobs")

    def settled(self) -> None:
        """Wait until no job is left and all runs are finished; no record may be written a second time."""
        seen: dict[str, set[int]] = {run.id: set() for run in self.runs}

        def over() -> bool:
            for run in self.runs:
                file = self.directory(run).path / "record.json"
                if file.exists():
                    seen[run.id].add(file.stat().st_ino)
            return not self.cluster.run("squeue", "--noheader")

        self.cluster.wait(over, "the end of all jobs")
        lost = [run.id for run, records in zip(self.runs, seen.values(), strict=True) if not records]
        twice = [id_ for id_, records in seen.items() if len(records) > 1]
        assert (lost, twice) == ([], [])

    def adopt_teacher(self, other: Launch) -> None:
        """Take the finished teacher of another launch of the same sweep."""
        teacher = self.runs[0]
        shutil.copytree(other.directory(teacher).path, self.directory(teacher).path)

    def unequal(self, other: Launch) -> list[str]:
        """The runs whose records differ from those of another launch: result, areas or student weights."""
        world = World(self.folder)
        return [run.id for run in self.runs if not world.equal(run, str(self.work_dir), str(other.work_dir))]


def stopped(pid: int) -> bool:
    """Whether a process is held still."""
    return _of_process(pid, "State") == "T"


def pending(pid: int) -> bool:
    """Whether a signal waits for a process that is held still."""
    return int(_of_process(pid, "ShdPnd") or "0", base=16) > 0


def _of_process(pid: int, key: str) -> str:
    """What the system says of a process; empty if there is none."""
    try:
        found = re.search(rf"^{key}:\s*(\S+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return found[1] if found else ""


def _before(folder: Path, variable: str) -> str:
    """The folders of an environment variable, with another before them."""
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get(variable)])])


def _yaml(file: Path, content: dict[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    YAML(typ="safe").dump(content, file)
    return file
