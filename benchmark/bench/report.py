"""What it costs to read many records, to make every table of them and the report, and to start the command line.

`python -m benchmark.bench.report`, part of `make bench`: `report.json` in results/bench. The records are copies of
those in results/records, with their areas, under other seeds. Each command is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmark.core.environment import code_version, package_versions, processor
from benchmark.core.files import make_folder, write_json
from benchmark.core.paths import ROOT
from benchmark.records.record import records
from benchmark.records.run_directory import RunDirectory

RESULTS = ROOT / "results"
SEED_STEP = 1000
"""Copies of one record are so many seeds apart."""

COMMANDS = {
    "tables": ["-m", "benchmark.cli", "tables", "--format", "md,csv"],
    "report": ["-m", "benchmark.cli", "report"],
}
"""What is measured on all records, by name."""


def main(argv: list[str]) -> int:
    """Measure, print, and write `report.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.bench.report", description=__doc__)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "bench")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=RESULTS) as folder:  # a link to areas needs their file system
        write_copies(RESULTS / "records", Path(folder), arguments.records)
        times = {
            name: measure([*command, "--work-dir", folder], arguments.rounds) for name, command in COMMANDS.items()
        }
    bare, started = (measure(command, arguments.rounds) for command in (["-c", ""], ["-m", "benchmark.cli", "--help"]))
    commit, dirty = code_version()
    report = {
        "records": arguments.records,
        "commands": times,
        "help_above_bare_python": {name: started[name] - bare[name] for name in bare},
        "load": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "machine": {"processor": processor(), "versions": package_versions()},
        "commit": commit,
        "dirty": dirty,
    }
    make_folder(arguments.out)
    write_json(arguments.out / "report.json", report)
    for name, spent in (*times.items(), ("help above bare Python", report["help_above_bare_python"])):
        print(f"{name}: {spent['seconds']:.2f} s, of it {spent['cpu_seconds']:.2f} s on the processor")
    return 0


def write_copies(source: Path, work_dir: Path, count: int) -> None:
    """`count` records in `work_dir`: copies of those in `source`, with links to their areas, under other seeds."""
    templates = records(source)
    for index in range(count):
        template, seeds = templates[index % len(templates)], SEED_STEP * (index // len(templates))
        inputs = template.inputs.model_copy(update={"seed": template.inputs.seed + seeds})
        record = template.model_copy(update={"inputs": inputs, "id": inputs.id})
        folder = RunDirectory(work_dir, record.id).path
        make_folder(folder)
        (folder / "record.json").write_text(record.model_dump_json(indent=1))
        if record.areas_sha256:
            os.link(source / template.id / "areas.npz", folder / "areas.npz")


def measure(command: list[str], rounds: int) -> dict[str, float]:
    """The fastest of several rounds of a Python command: wall-clock seconds, and seconds on the processor."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        times.append((time.perf_counter() - start, usage.ru_utime + usage.ru_stime))
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
    return {"seconds": min(wall for wall, _ in times), "cpu_seconds": min(cpu for _, cpu in times)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
