"""Programs run on while processes of the cluster are killed under them."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.system.harness import TestCluster
from tests.system.real_input.programs import run, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.system,
    pytest.mark.mount,
    pytest.mark.real_input,
    pytest.mark.timeout(1200),
]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[TestCluster]:
    """Of its own for each test: it is going to be hurt."""
    with TestCluster(tmp_path / "cluster") as running:
        yield running


def start_fio(directory: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *("fio", "--name=job", f"--directory={directory}", "--ioengine=psync", "--numjobs=4"),
            *(
                "--verify=crc32c",
                "--verify_fatal=1",
                "--do_verify=1",
                "--verify_state_save=0",
                "--fallocate=truncate",
                "--group_reporting",
            ),
            *options,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(program: subprocess.Popen[str]) -> None:
    try:
        out, _ = program.communicate(timeout=900)
    except subprocess.TimeoutExpired:
        program.kill()
        out, _ = program.communicate()
    assert program.returncode == 0, out[-4000:]


@pytest.mark.parametrize("victim", ["storage-1", "storage-2", "storage-3", "meta-1", "manager"])
def test_fio_goes_on_while_a_process_is_killed(cluster: TestCluster, victim: str) -> None:
    work = cluster.mountpoint / "work"
    work.mkdir()
    program = start_fio(
        work, "--rw=write", "--bsrange=1k-497k", "--bs_unaligned", "--size=96M", "--fsync=64"
    )
    for _ in range(2):
        time.sleep(2)  # the load must be under way: this is when the fault comes, not a wait for it
        cluster.kill9(victim)
        if victim.startswith("storage"):
            time.sleep(5)
    finish(program)
    cluster.wait_full()
    cluster.remount()
    finish(
        start_fio(
            work,
            "--rw=write",
            "--bsrange=1k-497k",
            "--bs_unaligned",
            "--size=96M",
            "--verify_only=1",
        )
    )


def test_namespace_programs_go_on_while_servers_are_killed(
    cluster: TestCluster, stdlib: Path
) -> None:
    copying = subprocess.Popen(["cp", "-a", stdlib, cluster.mountpoint / "copy"])
    for victim in ("meta-1", "storage-2", "manager", "meta-1"):
        time.sleep(1.5)
        cluster.kill9(victim)
    assert copying.wait(timeout=600) == 0
    run("diff", "-r", "--no-dereference", stdlib, cluster.mountpoint / "copy")


def test_a_storage_node_away_for_ten_seconds_catches_up(cluster: TestCluster) -> None:
    work = cluster.mountpoint / "work"
    work.mkdir()
    program = start_fio(work, "--rw=write", "--bs=128k", "--size=128M")
    with cluster.stopped("storage-2"):
        time.sleep(10)
    finish(program)
    cluster.wait_full()
    # Only the node that was away is asked now: what it caught up must be right.
    with cluster.stopped("storage-1"), cluster.stopped("storage-3"):
        cluster.remount()
        finish(start_fio(work, "--rw=write", "--bs=128k", "--size=128M", "--verify_only=1"))


def test_everything_synced_survives_kill_of_all(cluster: TestCluster) -> None:
    work = cluster.mountpoint / "work"
    work.mkdir()
    synced: dict[str, str] = {}
    for number in range(40):
        path = work / f"file {number}"
        with path.open("wb") as file:
            file.write(os.urandom(10_000 + 61_001 * number))
            file.flush()
            os.fsync(file.fileno())
        synced[path.name] = sha256(path)
    # The mount goes away under an open file: closing it says so.
    with suppress(OSError), (work / "not synced").open("wb") as file:
        file.write(bytes(1 << 20))
        cluster.kill9_all()
    cluster.up()
    for name, digest in synced.items():
        assert sha256(work / name) == digest, name
    (work / "and it can be written").write_bytes(b"yes")
