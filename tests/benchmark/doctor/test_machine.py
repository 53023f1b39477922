import json
import re
import subprocess
import sys

import pytest
from rich.console import Console

from benchmark.cli.__main__ import main
from benchmark.core.errors import KdsegError
from benchmark.core.paths import ROOT
from benchmark.doctor import checks, machine
from benchmark.doctor.findings import Finding, FindingState
from benchmark.doctor.machine import PROBES, data_roots, healthy, probe, show
from benchmark.spec import definitions

WORKS = {"version": "2.13.0+cpu", "cuda": None, "usable": True}
CUDA = WORKS | {"version": "2.13.0", "cuda": "13.0"}
BUILT = {"mmengine": True, "mmcv": True, "mmseg": True}
FORKS = {"onedl-mmengine": "0.10.12", "onedl-mmcv": "2.3.6", "onedl-mmsegmentation": "1.4.2"}


def stub(folder, name, script="exit 0"):
    """An executable that runs a shell script, on a PATH that has nothing else but the shell."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.fixture
def path(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("MODULESHOME", raising=False)
    return folder


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Puts a package that runs some code before all others, for the processes that try packages."""

    def put(name, code):
        (tmp_path / "site" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name / "__init__.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}")

    return put


def pinned_packages():
    lines = (ROOT / "requirements.txt").read_text().split()
    return set(lines) | {line.partition("==")[0] for line in lines}


def test_python_must_be_3_11():
    assert checks.python((3, 11, 0)).state == FindingState.OK
    old = checks.python((3, 10, 9))
    assert old.state == FindingState.BROKEN and "3.11 or newer" in old.detail and old.mend.startswith("make setup")


@pytest.mark.parametrize(
    ("code", "state", "detail"),
    [
        ("raise ImportError('libtorch_cpu.so: bad\\nmore')", "broken", "ImportError: libtorch_cpu.so: bad"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "broken", "killed: Segmentation fault"),
        ("raise ModuleNotFoundError(\"No module named 'torch'\")", "missing", "not installed"),
        ("raise SystemExit(4)", "broken", "ended with status 4"),
        ("import time; time.sleep(600)", "broken", "no answer within 2 s"),
    ],
)
def test_a_torch_that_does_not_import_is_a_finding(code, state, detail, broken):
    broken("torch", code)
    found = checks.torch(probe(PROBES["torch"], timeout_s=2 if "sleep" in code else 120))
    assert (found.state, detail in found.detail) == (state, True), found
    assert "-m pip install" in found.mend and found.mend.split()[-1] in pinned_packages()
    assert "\n" not in found.detail


@pytest.mark.slow
def test_the_installed_torch_multiplies():
    found = checks.torch(probe(PROBES["torch"]))
    assert found.state == FindingState.OK and "build" in found.detail


@pytest.mark.parametrize(
    ("facts", "driver", "state", "detail", "mend"),
    [
        (WORKS, False, "optional", "none; runs train on the CPU", ""),
        (WORKS, True, "optional", "this torch is a CPU build", "--force-reinstall torch=="),
        (CUDA, True, "optional", "torch sees none", "nvidia-smi"),
        (CUDA | {"gpus": ["H200", "H200"], "bf16": True}, True, "ok", "2 × H200, bf16", ""),
        (CUDA | {"gpus": ["P100"], "bf16": False}, True, "ok", "1 × P100, no bf16", ""),
        (CUDA | {"fault": "RuntimeError: no kernel image"}, True, "optional", "unusable: RuntimeError", "torch=="),
        ({"fault": "ImportError: x"}, True, "optional", "unknown until torch works", ""),
    ],
)
def test_gpus(facts, driver, state, detail, mend):
    found = checks.gpu(facts, driver)
    assert found.state == state and detail in found.detail
    assert mend in found.mend if mend else found.mend == ""


def test_opencv_without_a_screen_is_mended_by_the_headless_build():
    facts = {"fault": "ImportError: libGL.so.1: cannot open shared object file: No such file or directory"}
    found = checks.opencv(facts, {"opencv-python": "5.0.0.93"}.get)
    assert found.state == FindingState.BROKEN and "libGL.so.1" in found.detail and "headless" in found.detail
    assert "pip uninstall -y opencv-python &&" in found.mend
    assert found.mend.split()[-1] in pinned_packages()


def test_opencv_missing_alone_or_twice():
    gone = checks.opencv({"fault": "ModuleNotFoundError: No module named 'cv2'"}, {}.get)
    assert gone.state == FindingState.MISSING and "opencv-python-headless==" in gone.mend
    alone = checks.opencv({"version": "5.0.0"}, {"opencv-python-headless": "5.0.0.93"}.get)
    assert (alone.state, alone.mend) == (FindingState.OK, "")
    both = checks.opencv({"version": "5"}, {"opencv-python-headless": "5", "opencv-python": "5"}.get)
    assert both.state == FindingState.OPTIONAL and "share the folder cv2" in both.detail and "uninstall" in both.mend


def test_the_forks_are_fine_and_upstream_alone_is_named():
    assert {found.state for found in checks.toolbox(BUILT, FORKS.get)} == {FindingState.OK}
    upstream = {"mmengine": "0.10.7", "mmcv-lite": "2.1.0", "mmsegmentation": "1.2.2"}
    found = checks.toolbox(BUILT, upstream.get)
    assert {one.state for one in found} == {FindingState.OK} and "tested with onedl-mmcv" in found[1].detail


def test_a_fork_beside_upstream_is_broken_even_if_it_imports():
    engine, mmcv, mmseg = checks.toolbox(BUILT, (FORKS | {"mmcv-lite": "2.1.0"}).get)
    assert (engine.state, mmcv.state, mmseg.state) == (FindingState.OK, FindingState.BROKEN, FindingState.OK)
    assert mmcv.detail == "onedl-mmcv 2.3.6, mmcv-lite 2.1.0: they overwrite each other's files"
    assert "uninstall -y mmcv-lite && " in mmcv.mend and "--force-reinstall --no-deps onedl-mmcv==" in mmcv.mend


@pytest.mark.slow
def test_only_the_first_cause_is_mended(broken):
    broken("mmcv", "raise AssertionError('MMCV==2.2.0 is used but incompatible')")
    facts = probe(PROBES["toolbox"])
    engine, mmcv, mmseg = checks.toolbox(facts, FORKS.get)
    assert engine.state == FindingState.OK
    assert "AssertionError: MMCV==2.2.0 is used but incompatible" in mmcv.detail and "onedl-mmcv==" in mmcv.mend
    assert mmseg.detail.endswith("mend mmcv first") and mmseg.mend == ""
    blamed = checks.toolbox({"fault": "ImportError: libGL.so.1"}, FORKS.get, unusable="OpenCV")
    assert {one.mend for one in blamed} == {""} and all("mend OpenCV first" in one.detail for one in blamed)
    gone = checks.toolbox({"fault": "ModuleNotFoundError: No module named 'mmengine'"}, {}.get)
    assert {one.state for one in gone} == {FindingState.MISSING}
    assert all(one.mend.split()[-1] in pinned_packages() for one in gone)


@pytest.mark.parametrize(("threads", "state"), [("1", "ok"), (None, "optional"), ("8", "optional")])
def test_one_thread_per_process_is_advised(threads, state):
    found = checks.cpu(16, threads)
    assert found.state == state and found.detail.startswith("16 cores")
    assert found.mend == ("" if state == "ok" else "export OMP_NUM_THREADS=1")


@pytest.mark.parametrize(
    ("meminfo", "limit", "state", "detail"),
    [
        ("MemTotal: 25165824 kB\nMemAvailable: 20971520 kB\n", "max\n", "ok", "20.0 of 24.0 GiB free"),
        ("MemTotal: 25165824 kB\nMemAvailable: 20971520 kB\n", "2147483648\n", "optional", "2.0 of 2.0 GiB free"),
        ("MemTotal: 25165824 kB\nMemAvailable: 1048576 kB\n", "", "optional", "1.0 of 24.0 GiB free"),
        ("", "", "optional", "unknown"),
    ],
)
def test_memory(meminfo, limit, state, detail):
    found = checks.memory(meminfo, limit)
    assert found.state == state and detail in found.detail


def test_disk(tmp_path):
    folder = tmp_path / "not" / "yet"
    assert checks.disk(folder, 20 * 2**30).state == FindingState.OK
    assert not folder.exists()
    assert checks.disk(folder, 5 * 2**30).state == FindingState.OPTIONAL
    full = checks.disk(folder, 2**20)
    assert full.state == FindingState.BROKEN and full.mend == f"kdseg clean --work-dir {folder} --yes"
    (tmp_path / "file").touch()
    assert "Not a directory" in checks.disk(tmp_path / "file").detail


def test_a_folder_that_cannot_be_written_is_broken(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checks.tempfile, "TemporaryFile", refuse)
    found = checks.disk(tmp_path / "work")
    assert found.state == FindingState.BROKEN and "Permission denied" in found.detail
    assert found.mend == f"chmod u+rwx {tmp_path}"


def test_git(tmp_path, path):
    assert checks.git().mend == "sudo apt-get install git"
    stub(path, "git", 'case "$3" in rev-parse) echo abc123;; *) exit 0;; esac')
    assert checks.git(tmp_path) == Finding("git", FindingState.OK, "commit abc123, nothing changed since")
    stub(path, "git", 'case "$3" in rev-parse) echo abc123;; *) echo " M x";; esac')
    dirty = checks.git(tmp_path)
    assert dirty.state == FindingState.OPTIONAL and "uncommitted" in dirty.detail and "commit -a" in dirty.mend
    stub(path, "git", "exit 128")
    assert "no git checkout" in checks.git(tmp_path).detail


def test_slurm(path, monkeypatch):
    assert (checks.slurm().state, checks.slurm().mend) == (FindingState.OPTIONAL, "")
    monkeypatch.setenv("MODULESHOME", "x")
    assert checks.slurm().mend == "module load slurm"
    monkeypatch.delenv("MODULESHOME")
    for name in ("sbatch", "squeue", "scontrol"):
        stub(path, name, "echo slurm-wlm 24.05.2")
    assert checks.slurm().detail == "sacct not found"
    stub(path, "sacct")
    silent = checks.slurm()
    assert (
        silent.state == FindingState.OPTIONAL and "does not answer" in silent.detail and silent.mend == "scontrol ping"
    )
    stub(path, "scontrol", "echo 'Slurmctld(primary) at head is UP'")
    assert checks.slurm() == Finding("Slurm", FindingState.OK, "controller answers (slurm-wlm 24.05.2)")
    stub(path, "scontrol", "exec /bin/sleep 600")
    assert "does not answer" in checks.slurm(timeout_s=0.3).detail


def test_packages():
    assert checks.package("submitit", "why", {"submitit": "1.5.4"}.get, True).detail == "1.5.4"
    assert checks.package("submitit", "why", {}.get, True).state == FindingState.MISSING
    absent = checks.package("wandb", "why", {}.get, False)
    assert absent.state == FindingState.OPTIONAL and absent.mend.split()[-1] in pinned_packages()


def test_latex(path):
    assert checks.latex().mend == "sudo apt-get install texlive-latex-recommended latexmk"
    stub(path, "pdflatex")
    stub(path, "latexmk")
    assert checks.latex().state == FindingState.OK
    stub(path, "kpsewhich", "exit 1")
    assert "booktabs.sty not found" in checks.latex().detail
    stub(path, "kpsewhich", "echo /texmf/booktabs.sty")
    assert checks.latex().state == FindingState.OK


def test_chromium(path):
    assert checks.chromium().state == FindingState.OPTIONAL
    stub(path, "google-chrome")
    assert checks.chromium().detail == "google-chrome"


@pytest.fixture
def camvid(tmp_path):
    """CamVid's tree with empty files."""
    root = tmp_path / "camvid"
    for split, layout in definitions.dataset("camvid").splits.items():
        names = [f"{split}{index:04d}" for index in range(layout.count)]
        for folder, suffix in ((layout.images, ".jpg"), (layout.labels, ".png")):
            (root / folder).mkdir(parents=True)
            for name in names:
                (root / folder / f"{name}{suffix}").touch()
        (root / "splits").mkdir(exist_ok=True)
        (root / layout.names).write_text("\n".join(names))
    return root


def test_data(camvid, tmp_path):
    definition = definitions.dataset("camvid")
    assert checks.data(definition, None).state == FindingState.OPTIONAL
    assert checks.data(definition, None).mend == "kdseg doctor --data-root camvid=DIR"
    assert checks.data(definition, tmp_path / "no").state == FindingState.MISSING
    whole = checks.data(definition, camvid)
    assert (whole.state, whole.detail) == (FindingState.OK, "train 367 of 367, val 101 of 101 images with labels")
    (camvid / "labels/val/val0003.png").unlink()
    less = checks.data(definition, camvid)
    assert less.state == FindingState.BROKEN and "val 100 of 101" in less.detail and "images/train/*.jpg" in less.detail
    (camvid / "splits/train.txt").unlink()
    assert "train 0 of 367" in checks.data(definition, camvid).detail
    assert "kdseg data prepare cityscapes" in checks.data(definitions.dataset("cityscapes"), tmp_path).detail


def test_nested_folders_are_counted(tmp_path):
    (tmp_path / "aachen").mkdir()
    (tmp_path / "aachen" / "a_leftImg8bit.png").touch()
    assert checks._stems(tmp_path, "_leftImg8bit.png") == {"aachen/a"}


def test_weights(tmp_path):
    assert checks.weights(None).mend == "export KDSEG_WEIGHTS=DIR"
    assert checks.weights(tmp_path / "no").state == FindingState.MISSING
    assert checks.weights(tmp_path).detail.endswith("is empty")
    for index in range(6):
        (tmp_path / f"w{index}.pth").write_bytes(b"x" * 2**20)
    found = checks.weights(tmp_path)
    assert found.state == FindingState.OK and found.detail.startswith("w0.pth (1.0 MiB), ") and "2 more" in found.detail


@pytest.mark.parametrize(
    ("pair", "line"),
    [
        ("camvid", "--data-root: 'camvid' is not NAME=DIR, such as "),
        ("camvd=x", "--data-root: unknown dataset with files 'camvd'; did you mean camvid?"),
        ("drawn=x", "--data-root: unknown dataset with files 'drawn'; known: "),
    ],
)
def test_wrong_data_roots_are_one_clear_line(pair, line):
    with pytest.raises(KdsegError, match=re.escape(line)):
        data_roots([pair])


def test_optional_findings_never_fail():
    fine = [Finding("a", FindingState.OK, ""), Finding("b", FindingState.OPTIONAL, "")]
    assert healthy(fine)
    assert not healthy([*fine, Finding("c", FindingState.MISSING, "")])
    assert not healthy([*fine, Finding("c", FindingState.BROKEN, "")])


@pytest.fixture
def quick(monkeypatch, path):
    """A machine where everything needed is there, and nothing has to be tried."""
    facts = {PROBES["torch"]: WORKS, PROBES["cv2"]: {"version": "5"}, PROBES["toolbox"]: BUILT}
    monkeypatch.setattr(machine, "probe", facts.get)
    monkeypatch.setattr(machine, "installed", (FORKS | {"opencv-python-headless": "5", "submitit": "1.5.4"}).get)
    monkeypatch.delenv("KDSEG_WEIGHTS", raising=False)
    return facts


def test_exit_code_and_json(quick, tmp_path, capsys):
    place = ["--work-dir", str(tmp_path), "--format", "json"]
    assert main(["doctor", *place]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(set(row) == {"name", "state", "detail", "mend"} for row in rows)
    names = [row["name"] for row in rows]
    assert len(names) == len(set(names)) and {"torch", "mmseg", "Slurm", "data: camvid", "weights"} <= set(names)
    assert main(["doctor", *place, "--data-root", f"camvid={tmp_path / 'no'}"]) == 1
    quick[PROBES["torch"]] = {"fault": "ImportError: x"}
    assert main(["doctor", *place]) == 1
    assert main(["doctor", "--data-root", "camvd=x"]) == 2
    assert "did you mean camvid" in capsys.readouterr().err


def test_every_package_to_install_is_pinned(monkeypatch, tmp_path, path):
    monkeypatch.setattr(machine, "probe", lambda code: {"fault": "ImportError: x"})
    monkeypatch.setattr(machine, "installed", {}.get)
    found = machine.examine(tmp_path, data_roots([]), None)
    installs = [finding.mend for finding in found if "pip install" in finding.mend]
    assert len(installs) == 7
    assert all(re.fullmatch(r"[\w-]+==\S+", mend.split()[-1]) for mend in installs)
    assert {mend.split()[-1] for mend in installs} <= pinned_packages()
    assert all(finding.mend for finding in found if finding.state in (FindingState.MISSING, FindingState.BROKEN))


def test_the_table_fits_80_columns_and_commands_stay_whole(capsys):
    command = "python -m pip install --force-reinstall --no-deps " + "x" * 60
    found = [
        Finding("torch", FindingState.BROKEN, "cannot be imported: " + "word " * 40, command),
        Finding("data: cityscapes", FindingState.OPTIONAL, "[red]no markup[/red]", "export A=[b]"),
    ]
    show(found, Console(width=80))
    lines = capsys.readouterr().out.splitlines()
    assert f"  {command}" in lines and "  export A=[b]" in lines
    assert all(len(line) <= 80 for line in lines if "pip" not in line)
    assert lines[-1].endswith("torch")


@pytest.mark.slow
def test_the_whole_is_done_without_torch_in_our_process(tmp_path):
    code = (
        "import sys; from benchmark.cli.__main__ import main\n"
        f"code = main(['doctor', '--work-dir', {str(tmp_path)!r}])\n"
        "print({'torch', 'mmengine', 'mmcv', 'mmseg', 'cv2'} & set(sys.modules), code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.stdout.splitlines()[-1] == "set() 0", done.stdout + done.stderr
