"""A cluster's life as an operator sees it: up, again, killed, down."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest

from fireflyfs.supervisor.create import create
from tests.system.harness import (
    TestCluster,
    done,
    fireflyfs,
    kill_and_wait,
    mounts_below,
    processes_of,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.system, pytest.mark.mount]

SERVERS = {"manager", "meta-1", "storage-1", "storage-2", "storage-3"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    with TestCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def test_up_mounts_a_whole_cluster(cluster: TestCluster) -> None:
    status = cluster.status()
    assert status["state"] == "up"
    assert {p["name"] for p in status["processes"]} == SERVERS | {"mount", "supervisor"}
    assert all(p["pid"] for p in status["processes"])
    assert {n["name"] for n in status["nodes"] if n["alive"]} == SERVERS - {"manager"}
    assert status["chains"]
    for chain in status["chains"]:
        assert [t["state"] for t in chain["targets"]] == ["serving"] * 3
        assert len({t["node_id"] for t in chain["targets"]}) == 3
    (mount,) = status["mounts"]
    assert (mount["mountpoint"], mount["answers"]) == (str(cluster.mountpoint), True)
    assert mount["size_bytes"] > 0
    (cluster.mountpoint / "f").write_bytes(b"hello")
    assert (cluster.mountpoint / "f").read_bytes() == b"hello"


def test_up_again_says_so_and_changes_nothing(cluster: TestCluster) -> None:
    before = cluster.pids()
    again = cluster.up()
    assert again["was_up"]
    assert cluster.pids() == before
    assert "is up" in done("up", "--dir", cluster.directory)


def test_tables_for_people(cluster: TestCluster) -> None:
    text = done("status", "--dir", cluster.directory)
    for word in ("storage-3", "manager", "serving", str(cluster.mountpoint), "free of"):
        assert word in text


def test_doctor_finds_nothing(cluster: TestCluster) -> None:
    answer = json.loads(done("doctor", "--dir", cluster.directory, "--json"))
    assert answer["ok"], answer
    assert {"gRPC health of manager", "gRPC health of meta-1"} <= {
        check["check"] for check in answer["checks"]
    }


def test_strangers_do_not_find_the_processes_open(cluster: TestCluster) -> None:
    """Every port is on loopback (/proc/net/tcp: little-endian; gRPC's are IPv6)."""
    pids = cluster.pids().values()
    inodes = set()
    for pid in pids:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            inodes.add(os.readlink(entry.path))
    for table in ("tcp", "tcp6"):
        with open(f"/proc/net/{table}") as file:
            rows = [line.split() for line in file.readlines()[1:]]
        listening = [r for r in rows if r[3] == "0A" and f"socket:[{r[9]}]" in inodes]
        assert all(r[1].partition(":")[0].endswith("0100007F") for r in listening), listening


@pytest.mark.parametrize("name", [*sorted(SERVERS), "mount"])
def test_a_killed_process_returns(cluster: TestCluster, name: str) -> None:
    (cluster.mountpoint / "survivor").write_bytes(b"kept")
    old = cluster.kill9(name)
    until(lambda: cluster.pids().get(name, old) != old, f"{name} was restarted", 30)
    cluster.wait_full()
    assert (cluster.mountpoint / "survivor").read_bytes() == b"kept"
    restarted = next(p for p in cluster.status()["processes"] if p["name"] == name)
    assert restarted["restarts"] >= 1


def test_a_killed_supervisor_is_replaced_without_a_restart(cluster: TestCluster) -> None:
    cluster.wait_full()
    before = cluster.pids()
    cluster.kill9("supervisor")
    assert (cluster.mountpoint / "survivor").read_bytes() == b"kept"
    assert not cluster.up()["was_up"]
    after = cluster.pids()
    assert after.pop("supervisor") != before.pop("supervisor")
    assert after == before
    old = cluster.kill9("storage-1")  # adopted processes are watched, too
    until(lambda: cluster.pids().get("storage-1", old) != old, "storage-1 was restarted", 30)
    cluster.wait_full()


def test_two_supervisors_never_run(cluster: TestCluster) -> None:
    host = cluster.directory / "config" / "host.toml"
    result = fireflyfs("supervise", "--config", host)
    assert (result.returncode, result.stdout) == (2, "")
    assert "another supervisor keeps" in result.stderr


def test_more_mounts(cluster: TestCluster, tmp_path: Path) -> None:
    (cluster.mountpoint / "seen").write_bytes(b"everywhere")
    by_directory = cluster.mount_again(tmp_path / "with space")
    by_file = tmp_path / "by file"
    by_file.mkdir()
    done("mount", cluster.directory / "config" / "cluster.toml", by_file)
    assert (by_directory / "seen").read_bytes() == b"everywhere"
    assert (by_file / "seen").read_bytes() == b"everywhere"
    with (by_directory / "seen").open():
        busy = fireflyfs("umount", by_directory)
        assert (busy.returncode, busy.stderr.count("\n")) == (1, 1)
        assert "busy" in busy.stderr
        assert (by_directory / "seen").read_bytes() == b"everywhere"
    for point in (by_directory, by_file):
        done("umount", point)
        assert not list(point.iterdir())
    assert not mounts_below(tmp_path)
    assert len(cluster.status()["mounts"]) == 1


def test_a_foreground_mount_ends_with_its_process(cluster: TestCluster, tmp_path: Path) -> None:
    point = tmp_path / "m"
    point.mkdir()

    command = [sys.executable, "-m", "fireflyfs.cli", "mount", "--foreground"]
    process = subprocess.Popen([*command, cluster.directory, point])
    until(lambda: mounts_below(tmp_path), "it is mounted", 30)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0
    assert not mounts_below(tmp_path)


def test_down_and_up_keep_the_files(cluster: TestCluster) -> None:
    (cluster.mountpoint / "kept").write_bytes(b"\x00\xff" * 700_000)
    cluster.down()
    assert not processes_of(cluster.directory)
    assert not mounts_below(cluster.directory)
    assert cluster.status()["state"] == "down"
    assert "down already" in done("down", "--dir", cluster.directory)
    assert not cluster.up()["was_up"]
    assert (cluster.mountpoint / "kept").read_bytes() == b"\x00\xff" * 700_000


def test_up_finds_everything_after_kill9_of_all(cluster: TestCluster) -> None:
    path = cluster.mountpoint / "synced"
    with path.open("wb") as file:
        file.write(b"here" * 500_000)
        file.flush()
        os.fsync(file.fileno())
    cluster.kill9_all()
    assert mounts_below(cluster.directory)  # dead: its process was killed
    cluster.up()
    assert path.read_bytes() == b"here" * 500_000


def test_down_cleans_up_without_a_supervisor(cluster: TestCluster) -> None:
    kill_and_wait(cluster.pids()["supervisor"])
    kill_and_wait(cluster.pids()["mount"])
    cluster.down()
    assert not processes_of(cluster.directory)
    assert not mounts_below(cluster.directory)
    cluster.up()


def test_the_mount_moves_on_request(cluster: TestCluster, tmp_path: Path) -> None:
    point = tmp_path / "elsewhere"
    point.mkdir()
    done("up", "--dir", cluster.directory, "--mount", point)
    assert (point / "kept").exists()
    done("up", "--dir", cluster.directory, "--mount", cluster.mountpoint)
    assert not mounts_below(tmp_path)
    assert (cluster.mountpoint / "kept").exists()


def test_two_clusters_do_not_meet(cluster: TestCluster, tmp_path: Path) -> None:
    with TestCluster(tmp_path / "other", "--nodes", "1", "--chunk-size", "64KiB") as other:
        assert other.status()["replicas"] == 1
        (other.mountpoint / "mine").write_bytes(b"1")
        assert not (cluster.mountpoint / "mine").exists()
        assert other.status()["cluster_id"] != cluster.status()["cluster_id"]
    cluster.wait_full()


def test_a_directory_too_deep_for_sockets(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 50) / ("y" * 50)
    with TestCluster(deep, "--nodes", "1") as cluster:
        sockets = tomllib.loads((deep / "config" / "host.toml").read_text())["sockets"]
        assert not sockets.startswith(str(tmp_path))
        (cluster.mountpoint / "f").write_bytes(b"1")
        cluster.down()
        assert not os.path.exists(sockets)
        cluster.up()
        assert (cluster.mountpoint / "f").read_bytes() == b"1"


def test_a_storage_directory_of_another_cluster(cluster: TestCluster, tmp_path: Path) -> None:
    """The server refuses it; ``up`` says which and why, and leaves nothing running."""
    stranger = create(tmp_path / "d", nodes=1, replicas=1, chunk_size=1 << 20).root
    shutil.copytree(cluster.directory / "storage-1", stranger / "storage-1", dirs_exist_ok=True)
    result = fireflyfs("up", "--dir", stranger)
    assert (result.returncode, result.stdout) == (2, ""), result.stderr
    assert result.stderr.startswith("fireflyfs: storage-1 does not start: ")
    assert result.stderr.count("\n") == 1
    assert not processes_of(stranger)
    assert not mounts_below(stranger)
