"""A real Slurm for the tests that ask for it: one cluster for the whole session, cleaned up after each test."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.slurm.cluster import FOREIGN, Cluster, missing_packages
from tests.slurm.sweeps import Launch

REQUIRED = "KDSEG_REQUIRE_SLURM"
"""Set to 1 (as CI does), a machine without Slurm makes the tests fail instead of skip."""

ARRAY = 11
"""MaxArraySize of the cluster: small, so that every larger sweep meets it."""


@pytest.fixture(scope="session")
def accounting_cluster() -> Iterator[Cluster]:
    """A cluster with accounting, for as long as the session."""
    with _cluster(accounting=True) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def bare_cluster() -> Iterator[Cluster]:
    """A cluster without accounting: no sacct, and up in half a second."""
    with _cluster(accounting=False) as cluster:
        yield cluster


@pytest.fixture
def cluster(accounting_cluster, monkeypatch) -> Iterator[Cluster]:
    """The cluster with accounting, healthy and empty; commands of this process and its children go to it."""
    with _used(accounting_cluster, monkeypatch):
        yield accounting_cluster


@pytest.fixture
def cluster_without_accounting(bare_cluster, monkeypatch) -> Iterator[Cluster]:
    """The same for the cluster without accounting."""
    with _used(bare_cluster, monkeypatch):
        yield bare_cluster


@contextmanager
def _cluster(accounting: bool) -> Iterator[Cluster]:
    missing = missing_packages()
    if missing:
        reason = f"no Slurm here; for these tests: apt-get install {' '.join(missing)}"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{REQUIRED}=1, but {reason}")
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="kdseg-slurm-"))  # pytest's own folders are too long for sockets
    # Processes of a job meet at a port that follows from its number: clusters beside each other count from elsewhere.
    cluster = Cluster(folder, accounting, {"MaxArraySize": str(ARRAY), "FirstJobId": str(random.randrange(1, 12000))})
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)


@contextmanager
def _used(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    cluster.start()
    for name in [name for name in os.environ if FOREIGN.match(name)]:
        monkeypatch.delenv(name)
    for name, value in cluster.environment().items():
        monkeypatch.setenv(name, value)
    yield
    cluster.start()
    cluster.cancel_all()


@pytest.fixture(scope="session")
def undisturbed(accounting_cluster, tmp_path_factory) -> Launch:
    """The sweep of `Launch` where nothing happened to it: trained here, in two processes at most."""
    launch = Launch(accounting_cluster, tmp_path_factory.mktemp("undisturbed"))
    launch.kdseg("sweep", launch.sweep, "--jobs", "2")
    return launch


@pytest.fixture
def launch(cluster, undisturbed, tmp_path) -> Launch:
    """The same sweep, to be submitted; its teacher is done."""
    return _launch(cluster, undisturbed, tmp_path)


@pytest.fixture
def launch_without_accounting(cluster_without_accounting, undisturbed, tmp_path) -> Launch:
    """The same on the cluster without accounting."""
    return _launch(cluster_without_accounting, undisturbed, tmp_path)


def _launch(cluster: Cluster, undisturbed: Launch, folder: Path) -> Launch:
    made = Launch(cluster, folder)
    made.adopt_teacher(undisturbed)
    return made
