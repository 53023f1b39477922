"""Small sweeps on the test cluster: submit one, wait for a moment, disturb it, compare it with the undisturbed one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmark.records.run_directory import RunDirectory, Status
from benchmark.spec.runs import Run
from benchmark.sweeps.plan import load_sweep, plan_sweep
from tests.conftest import World
from tests.slurm.cluster import Cluster

RECIPE = {"data.iterations": 20, "data.crop": [48, 64], "optim.warmup": 0}
PROFILE = {"cpus_per_task": 1, "mem_gb": 1, "timeout_min": 60, "signal_delay_s": 30, "array_parallelism": 2}

INTERVAL = "--checkpoint-interval", "5"


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
        rows = json.loads(process.communicate(timeout=300)[0])
        return {row["run"]: row["state"] + (f" ({row['cause']})" if row["cause"] else "") for row in rows}

    def kdseg(self, *arguments: str | Path, code: int = 0) -> str:
        """What a `kdseg` command says; it must end with this exit code."""
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == code, said
        return said

    def start(
        self, *arguments: str | Path, path: Path | None = None, errors: int = subprocess.STDOUT
    ) -> subprocess.Popen:
        """Start a `kdseg` command; programs of the folder `path` take the place of others with their name."""
        more = {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}"} if path else {}
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

    def reached(self, run: Run, iteration: int) -> Status:
        """The heartbeat of a run, as soon as a process that lives has taken it to an iteration."""
        found: list[Status] = []

        def there() -> bool:
            status = self.directory(run).status()
            if status and status.iteration >= iteration and Path(f"/proc/{status.pid}").exists():
                found.append(status)
            return bool(found)

        self.cluster.wait(there, f"iteration {iteration}")
        return found[0]

    def hold(self, run: Run, iteration: int = 6) -> int:
        """Stop the process of a run at an iteration or a little later, so that a fault finds it there; its id."""
        pid = self.reached(run, iteration).pid
        os.kill(pid, signal.SIGSTOP)
        return pid

    def signalled(self, pid: int) -> None:
        """Wait until Slurm has signalled a held process: it wakes it to do so."""
        self.cluster.wait(lambda: not stopped(pid), "a signal from Slurm")

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
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except FileNotFoundError:
        return False


def _yaml(file: Path, content: dict[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    YAML(typ="safe").dump(content, file)
    return file
