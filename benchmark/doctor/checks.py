"""What `kdseg doctor` checks: each check is a function of what was seen, and returns a finding and how to mend it.

Nothing that may be broken is imported here.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmark.core.paths import ROOT
from benchmark.core.weights import WEIGHTS_VARIABLE
from benchmark.doctor.findings import Finding, FindingState, apt, output_of, pinned, pip, text
from benchmark.spec.definitions import Dataset

FORKS = {"mmengine": "onedl-mmengine", "mmcv": "onedl-mmcv", "mmseg": "onedl-mmsegmentation"}
UPSTREAM = {"mmengine": ("mmengine", "mmengine-lite"), "mmcv": ("mmcv", "mmcv-lite"), "mmseg": ("mmsegmentation",)}
OPENCV = ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")
HEADLESS = "opencv-python-headless"
SLURM = ("sbatch", "squeue", "sacct", "scontrol")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
GIB = 2**30
Installed = Callable[[str], str | None]


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """The Python that runs us."""
    detail = f"{'.'.join(map(str, version))} ({platform.python_implementation()})"
    if version >= (3, 11):
        return Finding("Python", FindingState.OK, detail)
    return Finding("Python", FindingState.BROKEN, f"{detail}; 3.11 or newer is needed", "make setup PYTHON=python3.11")


def torch(facts: Mapping[str, Any]) -> Finding:
    """PyTorch: there, of which build, and able to multiply."""
    if facts.get("usable"):
        build = f"CUDA {facts['cuda']} build" if facts["cuda"] else "CPU build"
        return Finding("torch", FindingState.OK, f"{facts['version']}, {build}")
    state, detail = _fault(facts, "torch")
    again = "" if state is FindingState.MISSING else "--force-reinstall "
    return Finding("torch", state, detail, pip(f"install {again}{pinned('torch')}"))


def gpu(facts: Mapping[str, Any], driver: bool) -> Finding:
    """GPUs that PyTorch can use; `driver` says that nvidia-smi is here."""
    if not facts.get("usable"):
        return Finding("GPU", FindingState.OPTIONAL, "unknown until torch works")
    gpus = facts.get("gpus", [])
    reinstall = pip(f"install --force-reinstall {pinned('torch')}")
    if facts.get("fault"):
        return Finding("GPU", FindingState.OPTIONAL, f"there, but unusable: {facts['fault']}", reinstall)
    if gpus:
        names = ", ".join(f"{gpus.count(name)} × {name}" for name in dict.fromkeys(gpus))
        return Finding("GPU", FindingState.OK, f"{names}, {'bf16' if facts['bf16'] else 'no bf16'}")
    if driver and not facts["cuda"]:
        return Finding("GPU", FindingState.OPTIONAL, "nvidia-smi is here, but this torch is a CPU build", reinstall)
    if driver:
        return Finding("GPU", FindingState.OPTIONAL, "nvidia-smi is here, but torch sees none", "nvidia-smi")
    return Finding("GPU", FindingState.OPTIONAL, "none; runs train on the CPU, without --amp")


def opencv(facts: Mapping[str, Any], installed: Installed) -> Finding:
    """OpenCV: its headless build needs no screen's libraries (libGL)."""
    versions = _versions((HEADLESS, *OPENCV), installed)
    others = [name for name in versions if name != HEADLESS]
    what = ", ".join(f"{name} {number}" for name, number in versions.items()) or facts.get("version", "")
    mend = pip(f"install --force-reinstall --no-deps {pinned(HEADLESS)}")
    if others:
        mend = f"{pip('uninstall -y ' + ' '.join(others))} && {mend}"
    if "version" not in facts:
        state, detail = _fault(facts, "cv2")
        screen = "; the headless build needs no screen's libraries" if re.search(r"\blib\w+\.so", detail) else ""
        return Finding("OpenCV", state, detail + screen, mend)
    if len(versions) > 1:
        return Finding("OpenCV", FindingState.OPTIONAL, f"{what}: they share the folder cv2, the last one wins", mend)
    return Finding("OpenCV", FindingState.OK, what)


def toolbox(facts: Mapping[str, Any], installed: Installed, unusable: str = "") -> list[Finding]:
    """mmengine, mmcv and mmseg: from which distribution, and whether they import.

    Args:
        unusable: what they need, and is itself to be mended first.
    """
    findings = []
    for module, fork in FORKS.items():
        versions = _versions((fork, *UPSTREAM[module]), installed)
        upstream = [name for name in versions if name != fork]
        what = ", ".join(f"{name} {number}" for name, number in versions.items())
        mend = pip(f"install {'--force-reinstall ' if versions else ''}--no-deps {pinned(fork)}")
        if upstream:
            mend = f"{pip('uninstall -y ' + ' '.join(upstream))} && {mend}"
        if len(versions) > 1:
            findings.append(Finding(module, FindingState.BROKEN, f"{what}: they overwrite each other's files", mend))
        elif facts.get(module):
            note = f"; the suite is tested with {fork}" if upstream else ""
            findings.append(Finding(module, FindingState.OK, (what or "there, of no known distribution") + note))
        elif not versions:
            findings.append(Finding(module, FindingState.MISSING, "not installed", mend))
        elif unusable:
            findings.append(Finding(module, FindingState.BROKEN, f"{what}: cannot be imported; mend {unusable} first"))
        else:
            findings.append(Finding(module, FindingState.BROKEN, f"{what}: {_fault(facts, module)[1]}", mend))
            unusable = module
    return findings


def cpu(cores: int, threads: str | None) -> Finding:
    """Cores that we may use, and threads of a process: parallelism comes from processes; results depend on threads."""
    count = f"{cores} cores" if cores > 1 else f"{cores} core"
    if threads == "1":
        return Finding("CPU", FindingState.OK, f"{count}, one thread per process")
    now = f"OMP_NUM_THREADS={threads}" if threads else "OMP_NUM_THREADS is not set"
    detail = f"{count}; {now}: processes get in each other's way"
    return Finding("CPU", FindingState.OPTIONAL, detail, "export OMP_NUM_THREADS=1")


def memory(meminfo: str, limit: str) -> Finding:
    """Memory, from the texts of /proc/meminfo and of the control group's limit (both empty elsewhere than on Linux)."""
    sizes = {key: int(size) * 1024 for key, size in re.findall(r"(\w+):\s+(\d+) kB", meminfo)}
    if "MemTotal" not in sizes:
        return Finding("memory", FindingState.OPTIONAL, "unknown on this system")
    total = min(sizes["MemTotal"], int(limit) if limit.strip().isdigit() else sizes["MemTotal"])
    free = min(sizes.get("MemAvailable", total), total)
    detail = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if free >= 4 * GIB:
        return Finding("memory", FindingState.OK, detail)
    return Finding("memory", FindingState.OPTIONAL, f"{detail}; run one job at a time", "kdseg sweep SWEEP --jobs 1")


def disk(work_dir: Path, free: int | None = None) -> Finding:
    """Free disk where runs are kept, and whether we may write there."""
    folder = next(path for path in (work_dir, *work_dir.absolute().parents) if os.path.lexists(path))
    try:
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free if free is None else free
    except OSError as error:
        mend = "kdseg doctor --work-dir DIR" if not folder.is_dir() else f"chmod u+rwx {shlex.quote(str(folder))}"
        return Finding("disk", FindingState.BROKEN, f"{folder}: cannot be written: {error.strerror or error}", mend)
    detail = f"{free / GIB:.1f} GiB free for {work_dir}"
    state = FindingState.BROKEN if free < GIB else FindingState.OPTIONAL if free < 10 * GIB else FindingState.OK
    mend = "" if state is FindingState.OK else f"kdseg clean --work-dir {shlex.quote(str(work_dir))} --yes"
    return Finding("disk", state, detail, mend)


def git(root: Path = ROOT) -> Finding:
    """The commit that records will name."""
    if not shutil.which("git"):
        return Finding("git", FindingState.OPTIONAL, "not found; records cannot name the commit", apt("git"))
    commit, changes = (
        output_of(["git", "-C", str(root), *words])
        for words in (
            ("rev-parse", "--short", "HEAD"),
            ("status", "--porcelain", "--untracked-files=no"),
        )
    )
    if commit is None or changes is None:
        return Finding("git", FindingState.OPTIONAL, "this code is in no git checkout; records cannot name the commit")
    if changes:
        detail = f"commit {commit}, with uncommitted changes (records will say so)"
        return Finding("git", FindingState.OPTIONAL, detail, f"git -C {shlex.quote(str(root))} commit -a")
    return Finding("git", FindingState.OK, f"commit {commit}, nothing changed since")


def slurm(timeout_s: float = 5) -> Finding:
    """Slurm: its commands, and whether the controller answers."""
    gone = [name for name in SLURM if not shutil.which(name)]
    module = "module load slurm" if "MODULESHOME" in os.environ else ""
    if gone == list(SLURM):
        return Finding("Slurm", FindingState.OPTIONAL, "not on this machine; sweeps run in local processes", module)
    if gone:
        return Finding("Slurm", FindingState.OPTIONAL, f"{', '.join(gone)} not found", module or apt("slurm-client"))
    answer = output_of(["scontrol", "ping"], timeout_s)
    if answer is None or " UP" not in answer:
        return Finding("Slurm", FindingState.OPTIONAL, "installed, but its controller does not answer", "scontrol ping")
    return Finding(
        "Slurm", FindingState.OK, f"controller answers ({output_of(['sbatch', '--version']) or 'version unknown'})"
    )


def package(name: str, use: str, installed: Installed, needed: bool) -> Finding:
    """A distribution that is only looked up, not imported."""
    number = installed(name)
    if number:
        return Finding(name, FindingState.OK, number)
    state = FindingState.MISSING if needed else FindingState.OPTIONAL
    return Finding(name, state, f"not installed; {use}", pip(f"install {pinned(name)}"))


def latex() -> Finding:
    """LaTeX, for tables in papers."""
    gone = [name for name in ("pdflatex", "latexmk") if not shutil.which(name)]
    if not gone and shutil.which("kpsewhich") and not output_of(["kpsewhich", "booktabs.sty"]):
        gone = ["booktabs.sty"]
    if gone:
        mend = apt("texlive-latex-recommended latexmk")
        return Finding(
            "LaTeX", FindingState.OPTIONAL, f"{', '.join(gone)} not found; only tests of tables need it", mend
        )
    return Finding("LaTeX", FindingState.OK, "pdflatex, latexmk, booktabs")


def chromium() -> Finding:
    """A browser, for the tests of reports."""
    browser = next((name for name in CHROMIUM if shutil.which(name)), None)
    if browser:
        return Finding("Chromium", FindingState.OK, browser)
    return Finding("Chromium", FindingState.OPTIONAL, "not found; only tests of reports need it", apt("chromium"))


def data(definition: Dataset, root: Path | None) -> Finding:
    """A dataset's files: images that have their label, against what the definition counts."""
    name, again = f"data: {definition.name}", f"kdseg doctor --data-root {definition.name}=DIR"
    if root is None:
        return Finding(name, FindingState.OPTIONAL, "no folder given", again)
    if not root.is_dir():
        return Finding(name, FindingState.MISSING, f"{root}: no such folder", again)
    counts, lacking = [], False
    for split, layout in definition.splits.items():
        pairs = _stems(root / layout.images, definition.image_suffix)
        pairs &= _stems(root / layout.labels, definition.label_suffix)
        if layout.names:
            pairs &= {line.strip() for line in text(root / layout.names).splitlines()}
        counts.append(f"{split} {len(pairs)} of {layout.count}")
        lacking |= len(pairs) != layout.count
    detail = f"{', '.join(counts)} images with labels"
    if not lacking:
        return Finding(name, FindingState.OK, detail)
    first = next(iter(definition.splits.values()))
    wanted = f"{first.images}/*{definition.image_suffix}, {first.labels}/*{definition.label_suffix}"
    wanted += f", {first.names}" if first.names else ""
    wanted += f"; {definition.obtain}" if definition.obtain else ""
    return Finding(name, FindingState.BROKEN, f"{detail}; expected {wanted}", again)


def weights(folder: Path | None) -> Finding:
    """The folder with initial weights."""
    mend = f"export {WEIGHTS_VARIABLE}=DIR"
    if folder is None:
        return Finding("weights", FindingState.OPTIONAL, "no folder given; networks start from scratch", mend)
    if not folder.is_dir():
        return Finding("weights", FindingState.MISSING, f"{folder}: no such folder", mend)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    sizes = [f"{path.relative_to(folder)} ({path.stat().st_size / 2**20:.1f} MiB)" for path in files]
    rest = [f"{len(sizes) - 4} more"] if len(sizes) > 4 else []
    state = FindingState.OK if files else FindingState.OPTIONAL
    return Finding("weights", state, ", ".join(sizes[:4] + rest) or f"{folder} is empty")


def _fault(facts: Mapping[str, Any], module: str) -> tuple[FindingState, str]:
    """Missing or broken, and why."""
    fault = facts.get("fault", "gave no answer")
    if fault.startswith("ModuleNotFoundError") and re.search(rf"'{module}'$", fault):
        return FindingState.MISSING, "not installed"
    return FindingState.BROKEN, f"cannot be imported: {fault}"


def _versions(names: Iterable[str], installed: Installed) -> dict[str, str]:
    return {name: number for name in names if (number := installed(name))}


def _stems(folder: Path, suffix: str) -> set[str]:
    """Names below a folder, without suffix; only listed, never opened."""
    files = (Path(parent, file).relative_to(folder) for parent, _, files in os.walk(folder) for file in files)
    return {str(file).removesuffix(suffix) for file in files if file.name.endswith(suffix)}
