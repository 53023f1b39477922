"""A real Slurm for tests: two nodes on loopback with pretended GPUs, all in one folder; no root, systemd or cgroups.

    python tests/slurm/cluster.py start FOLDER [--no-accounting] [--set MaxArraySize=11]
    python tests/slurm/cluster.py stop FOLDER
    python tests/slurm/cluster.py missing       # Debian packages that are not installed yet

Several may run beside each other, and beside a Slurm of the machine's own. Keep FOLDER short: sockets lie in it.
"""

from __future__ import annotations

import argparse
import getpass
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

NODES = ("127.0.0.1", "127.0.0.2")
"""Slurm takes these as names, and they resolve anywhere: MASTER_ADDR, the first node of a job, needs no /etc/hosts."""

CPUS, GPUS, MEMORY_MB = 8, 2, 32000
"""What a node claims to have; Slurm is told to believe it."""

PACKAGES = {
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server-core",
    "mariadb": "mariadb-client-core",
}
"""The Debian package of each program that is needed."""

PATIENCE_S = 900
"""Ends what would never end; no test is to depend on it."""

ACCOUNT = "bench"
PORTS = range(20000, 32000)
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
FOREIGN = re.compile(r"(SLURM|SLURMD|SBATCH|SRUN|SALLOC|SACCT|SQUEUE|SINFO)_")
"""Variables of an enclosing job or of a user's defaults, which must not reach this cluster."""


class ClusterError(Exception):
    """The cluster did not come up, or a command on it failed."""


def missing_packages() -> list[str]:
    """The Debian packages whose programs are not found."""
    return [package for program, package in PACKAGES.items() if not shutil.which(program, path=PATH)]


@dataclass(frozen=True)
class Cluster:
    """A cluster in a folder. `start` brings up what is not running, so it also mends what a test killed.

    Attributes:
        folder: holds everything; it must not be shared by two clusters.
        accounting: with slurmdbd and a database of its own; without, there is no `sacct` and any account passes.
        settings: more lines for slurm.conf, e.g. `{"MaxArraySize": "11"}`.
    """

    folder: Path
    accounting: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        """What SLURM_CONF names."""
        return self.folder / "etc/slurm.conf"

    @property
    def daemons(self) -> dict[str, Callable[[], None]]:
        """How each daemon is started, in order."""
        database = {"mariadbd": self._start_mariadbd, "slurmdbd": self._start_slurmdbd} if self.accounting else {}
        nodes = {f"slurmd-{node}": lambda node=node: self._start_slurmd(node) for node in NODES}
        return {"munged": self._start_munged, **database, "slurmctld": self._start_slurmctld, **nodes}

    def environment(self) -> dict[str, str]:
        """This process' environment, with commands such as sbatch turned to this cluster."""
        kept = {key: value for key, value in os.environ.items() if not FOREIGN.match(key)}
        return kept | {"PATH": PATH, "SLURM_CONF": str(self.conf), "MYSQL_UNIX_PORT": str(self._database_socket)}

    def run(self, *command: str, timeout: float = 60) -> str:
        """The output of a command on the cluster.

        Raises:
            ClusterError: it failed; the message is what it said.
        """
        try:
            done = subprocess.run(
                command, env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=timeout,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ClusterError(f"{' '.join(command)}: no answer within {timeout} s") from None
        if done.returncode:
            raise ClusterError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def start(self) -> None:
        """Start whatever is not running, and wait until both nodes can be used."""
        if not self.conf.exists():
            self._configure()
        for name, start in self.daemons.items():
            if self.pid(name) is None:
                start()
        self.wait(self._nodes_usable, "the nodes")

    def stop(self) -> None:
        """End all jobs, then all daemons of this folder."""
        if self.pid("slurmctld") is not None:
            self.cancel_all()
        for file in [*(self.folder / "run").glob("slurmd-*.pid")]:
            self.end(file.stem)
        for name in ("slurmctld", "slurmdbd", "mariadbd", "munged"):
            self.end(name)

    def cancel_all(self) -> None:
        """End all jobs of this user at once, and wait until none is left."""
        everything = ["scancel", "--quiet", f"--user={getpass.getuser()}"]
        self.run(*everything, "--state=PENDING")
        self.run(*everything, "--full", "--signal=KILL", "--state=RUNNING")
        self.run(*everything)
        self.wait(lambda: not self.run("squeue", "--noheader"), "the end of all jobs")

    def pid(self, daemon: str) -> int | None:
        """The process id of a daemon (`slurmctld`, `slurmd-127.0.0.1`, ...); None if it does not run.

        The link to its program is compared as well: a stale number may be another process by now, and a killed daemon
        that nobody waits for has none.
        """
        try:
            pid = int((self.folder / f"run/{daemon}.pid").read_text())
            program = os.readlink(f"/proc/{pid}/exe")
        except (OSError, ValueError):
            return None
        return pid if Path(program).name.startswith(daemon.partition("-")[0]) else None

    def kill(self, daemon: str) -> None:
        """SIGKILL, as a crash would."""
        self._send(daemon, signal.SIGKILL, 10)

    def end(self, daemon: str) -> None:
        """Stop a daemon in an orderly way, or kill it if it does not listen."""
        try:
            self._send(daemon, signal.SIGTERM, 20)
        except ClusterError:
            self.kill(daemon)

    def wait(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE_S) -> None:
        """Wait until a condition holds; commands that fail meanwhile count as "not yet"."""
        deadline, said = time.monotonic() + seconds, ""
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except ClusterError as error:
                said = f"; {error}"
            time.sleep(0.1)
        logs = [file for file in sorted((self.folder / "log").glob("*.log")) if file.stat().st_size]
        tails = [f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-15:]) for log in logs]
        raise ClusterError("\n".join([f"{what}: not after {seconds} s{said}", *tails]))

    # Configuration ---------------------------------------------------------------------------------------------

    def _configure(self) -> None:
        for name in ("etc", "run", "log", "state", "spool", "gpu"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, self.folder / "run"):
            folder.chmod(0o755)  # munged refuses a socket that others cannot reach
        for name in ("munge", "database"):
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        key = self.folder / "munge/key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        # slurmd wants device files, and takes the number at the end of the name for CUDA_VISIBLE_DEVICES.
        for number in range(GPUS):
            (self.folder / f"gpu/gpu{number}").symlink_to("/dev/null")
        names = ["slurmctld", "slurmdbd", *NODES]
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        values = {"folder": self.folder, "user": getpass.getuser(), "ports": ports}
        nodes = [
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[node]} CPUs={CPUS} "
            f"RealMemory={MEMORY_MB} Gres=gpu:{GPUS} State=UNKNOWN"
            for node in NODES
        ]
        slurmdbd = self.folder / "etc/slurmdbd.conf"
        slurmdbd.touch(mode=0o600)
        slurmdbd.write_text(_conf("slurmdbd.conf", **values))
        devices = f"{self.folder}/gpu/gpu[0-{GPUS - 1}]"
        gres = [f"NodeName={node} Name=gpu File={devices}" for node in NODES]
        (self.folder / "etc/gres.conf").write_text("\n".join(["AutoDetect=off", *gres, ""]))
        (self.folder / "etc/cgroup.conf").write_text("ConstrainCores=no\nConstrainDevices=no\n")
        no_accounting = "AccountingStorageType=accounting_storage/none"
        values["accounting"] = _conf("accounting.conf", **values) if self.accounting else no_accounting
        values["settings"] = "\n".join(f"{key}={value}" for key, value in self.settings.items())
        self.conf.write_text(_conf("slurm.conf", nodes="\n".join(nodes), **values))

    # Daemons ---------------------------------------------------------------------------------------------------

    @property
    def _database_socket(self) -> Path:
        return self.folder / "run/database.socket"

    def _daemon(self, *command: str | Path, **environment: str) -> None:
        """Start a program that goes to the background by itself."""
        log = self.folder / "log" / f"{Path(command[0]).name}.out.log"
        with log.open("a") as output:
            code = subprocess.call(
                [str(part) for part in command],
                env=self.environment() | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        if code:
            raise ClusterError(f"{command[0]}: exit code {code}: {log.read_text().strip()}")

    def _start_munged(self) -> None:
        (self.folder / "run/munge.socket").unlink(missing_ok=True)
        options = {
            "key-file": "munge/key",
            "socket": "run/munge.socket",
            "pid-file": "run/munged.pid",
            "log-file": "log/munged.log",
            "seed-file": "munge/seed",
        }
        self._daemon("munged", "--num-threads=4", *(f"--{key}={self.folder / path}" for key, path in options.items()))
        self.wait(lambda: self.run("munge", "--no-input", f"--socket={self.folder}/run/munge.socket"), "munged")

    def _start_mariadbd(self) -> None:
        """The database; durability is traded for speed, it does not outlive the tests."""
        data, user = self.folder / "database", getpass.getuser()
        if not (data / "mysql").exists():
            self._daemon(
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={data}",
                f"--user={user}",
                "--skip-test-db",
                "--skip-name-resolve",
                "--auth-root-authentication-method=socket",
                f"--auth-root-socket-user={user}",
            )
        self._daemon(
            "setsid",
            "--fork",
            "mariadbd",
            "--no-defaults",
            f"--datadir={data}",
            f"--user={user}",
            f"--socket={self._database_socket}",
            f"--pid-file={self.folder}/run/mariadbd.pid",
            f"--log-error={self.folder}/log/mariadbd.log",
            "--skip-networking",
            "--skip-log-bin",
            "--innodb-buffer-pool-size=32M",
            "--innodb-log-file-size=16M",
            "--innodb-lock-wait-timeout=900",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-flush-method=nosync",
            "--innodb-doublewrite=0",
            "--performance-schema=OFF",
            "--key-buffer-size=1M",
        )
        ask = ("mariadb", "--no-defaults", f"--socket={self._database_socket}", f"--user={user}", "-e", "select 1")
        self.wait(lambda: self.run(*ask), "mariadbd")

    def _start_slurmdbd(self) -> None:
        self._daemon("slurmdbd", SLURM_CONF=str(self.folder / "etc/slurmdbd.conf"))
        # It answers once it has made its tables; "add cluster" of one that is there is an error that does not matter.
        self.wait(lambda: self.run("sacctmgr", "--noheader", "show", "cluster") is not None, "slurmdbd")
        user = f"user={getpass.getuser()}"
        known = ("sacctmgr", "--noheader", "--parsable2", "show", "assoc", user, f"account={ACCOUNT}", "format=user")
        if not self.run(*known).strip():
            add = ("sacctmgr", "--immediate", "--quiet", "add")
            self.run(*add, "cluster", "kdseg")
            self.run(*add, "account", ACCOUNT, "Description=tests", "Organization=tests")
            self.run(*add, "user", user.partition("=")[2], f"account={ACCOUNT}")

    def _start_slurmctld(self) -> None:
        self._daemon("slurmctld")
        self.wait(lambda: "is UP" in self.run("scontrol", "ping"), "slurmctld")

    def _start_slurmd(self, node: str) -> None:
        (self.folder / "spool" / node).mkdir(exist_ok=True)
        self._daemon("slurmd", "-N", node)

    def _nodes_usable(self) -> bool:
        """Whether both nodes take jobs; one that a test or a crash left down is asked to come back."""
        states = dict(line.split() for line in self.run("sinfo", "-hN", "-p", "main", "-o", "%N %T").splitlines())
        for node, state in states.items():
            if state.startswith(("down", "drain")) and self.pid(f"slurmd-{node}"):
                self.run("scontrol", "update", f"nodename={node}", "state=resume")
        usable = {"idle", "mixed", "allocated", "completing"}
        return states.keys() == set(NODES) and set(states.values()) <= usable

    def _send(self, daemon: str, number: signal.Signals, seconds: float) -> None:
        pid = self.pid(daemon)
        if pid is not None:
            os.kill(pid, number)
            self.wait(lambda: self.pid(daemon) is None, f"the end of {daemon}", seconds)


def _conf(name: str, **values: object) -> str:
    """A configuration file of `tests/slurm/conf`, filled in."""
    return (Path(__file__).parent / "conf" / name).read_text().format(**values)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on, below those that outgoing connections take."""
    found: list[socket.socket] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        candidate = socket.socket()
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            candidate.close()
            continue
        found.append(candidate)
        if len(found) == count:
            break
    ports = [each.getsockname()[1] for each in found]
    for each in found:
        each.close()
    return ports


def main() -> int:
    """`start`, `stop` or `missing`, by hand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start", help="bring a cluster up, or what of it does not run")
    start.add_argument("folder", type=Path)
    start.add_argument("--no-accounting", action="store_true", help="without slurmdbd and database: faster")
    start.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a line for slurm.conf")
    commands.add_parser("stop", help="end a cluster's jobs and daemons").add_argument("folder", type=Path)
    commands.add_parser("missing", help="list the Debian packages that are not installed")
    arguments = parser.parse_args()
    if arguments.command == "missing":
        print(" ".join(missing_packages()))
        return 0
    folder = arguments.folder.resolve()
    if arguments.command == "stop":
        Cluster(folder).stop()
        return 0
    settings = dict(pair.partition("=")[::2] for pair in arguments.set)
    cluster = Cluster(folder, accounting=not arguments.no_accounting, settings=settings)
    cluster.start()
    print(f"export SLURM_CONF={cluster.conf}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
