"""A mounted cluster for each module, and a fresh directory on it for each test.

``FIREFLYFS_TEST_ON=DIR`` runs the same programs in a directory of any other file system: what fails
there too is not ours.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.harness import TestCluster

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster | None]:
    if os.environ.get("FIREFLYFS_TEST_ON"):
        yield None
        return
    with TestCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def work(cluster: TestCluster | None, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty directory on the mount, removed afterwards (which tests removal, too)."""
    root = cluster.mountpoint if cluster else Path(os.environ["FIREFLYFS_TEST_ON"])
    directory = root / request.node.name.replace("/", "_")
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def stdlib(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local copy of the running Python's standard library, without what others installed."""
    source = Path(sysconfig.get_paths()["stdlib"])
    copy = tmp_path_factory.mktemp("source") / "stdlib"
    unwanted = shutil.ignore_patterns(
        "site-packages", "dist-packages", "__pycache__", "*.a", "*.so"
    )
    shutil.copytree(source, copy, symlinks=True, ignore=unwanted)
    (copy / "a link").symlink_to("os.py")
    (copy / "a dangling link").symlink_to("nowhere/at/all")
    os.link(copy / "os.py", copy / "another name of os.py")
    assert len(list(copy.rglob("*"))) > 1000
    return copy


@pytest.fixture(scope="session")
def python() -> str:
    return sys.executable
