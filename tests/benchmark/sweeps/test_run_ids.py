"""Run ids of the sweep files that come with kdseg: an id that moves orphans every record of its run."""

import hashlib

import pytest

from benchmark.core.paths import SWEEPS
from benchmark.sweeps.plan import load_sweep, plan_sweep

RECORDED = {
    "ablation": (50, "9baac01749582910"),
    "ade20k": (167, "f35ba649d9950c33"),
    "anchors-segformer": (25, "c8e48d31e90da405"),
    "anchors": (82, "0c9c5c141b9ad61d"),
    "baselines": (27, "a4939b5383159895"),
    "camvid-cnn-to-transformer": (18, "7b828df20b2466b5"),
    "camvid-transformer-to-cnn": (18, "1516dba7636d6579"),
    "cityscapes": (167, "0214e598a674c06c"),
    "demo": (19, "1642d8f91fda9198"),
    "figure6": (74, "bb9a4404f24184cd"),
    "similarity": (17, "b34c40a655c5e8a4"),
    "tiny": (3, "b9419cdaf2b78b30"),
    "voc": (167, "e0dcd5db2e3fa334"),
}
"""Sweep file -> number of runs, and a hash of their ids in order. Ids move only with what CONTRIBUTING.md says."""


def ids(name: str) -> tuple[int, str]:
    """How many runs a sweep file has, and a hash of their ids."""
    runs = plan_sweep(load_sweep(SWEEPS / f"{name}.yaml"), None, []).manifest.runs
    return len(runs), hashlib.sha256(" ".join(run.id for run in runs).encode()).hexdigest()[:16]


def test_every_sweep_file_is_recorded():
    assert set(RECORDED) == {file.stem for file in SWEEPS.glob("*.yaml")}


@pytest.mark.parametrize("name", RECORDED)
def test_run_ids_are_those_recorded(name):
    assert ids(name) == RECORDED[name]
