"""A disk that fills up while the cluster runs: refusals at once, and all else goes on."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.system.harness import TestCluster, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.system, pytest.mark.mount]

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(directory: Path, size: int) -> int:
    """Write files until there is no space for one more; how many there are."""
    directory.mkdir()
    for number in range(10_000):
        begun = time.monotonic()
        try:
            (directory / str(number)).write_bytes(os.urandom(size))
        except OSError as error:
            assert (error.errno, time.monotonic() - begun < 5) == (errno.ENOSPC, True)  # noqa: PT017
            return number
    raise AssertionError("it never fills up")


def test_a_disk_that_fills_up(small_disk: Path) -> None:
    with TestCluster(small_disk / "cluster") as cluster:
        work = cluster.mountpoint / "work"
        work.mkdir()
        kept = os.urandom(20 * MIB)
        (work / "kept").write_bytes(kept)
        for size in (10 * MIB, 500_000):
            for turn in range(2):  # what was given back can be taken again
                count = fill(work / "full", size)
                if not turn:
                    first = count
                assert count >= first - first // 8
                assert (work / "kept").read_bytes() == kept
                until(lambda: shutil.disk_usage(work).free < 16 * MIB, "df says so", 10)
                shutil.rmtree(work / "full")
                until(lambda: shutil.disk_usage(work).free > 80 * MIB, "df says so", 20)
        (work / "kept").unlink()
        for log in (cluster.directory / "logs").iterdir():
            assert "level=error" not in log.read_text()
