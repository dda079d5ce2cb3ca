"""A cluster's directory: made whole or not at all, found again."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fireflyfs import config
from fireflyfs.config import ManagerConfig, MetaConfig, MountConfig, StorageConfig
from fireflyfs.errors import Code, FsError
from fireflyfs.net.address import Address
from fireflyfs.supervisor import create, directory, ports
from fireflyfs.supervisor.directory import ClusterDirectory

KIB = 1024


def make(
    root: Path, nodes: int = 3, replicas: int = 2, chunk_size: int = 256 * KIB
) -> ClusterDirectory:
    return create.create(root, nodes=nodes, replicas=replicas, chunk_size=chunk_size)


def test_what_is_made_is_found_again(tmp_path: Path) -> None:
    made = make(tmp_path / "d")
    found = ClusterDirectory.open(tmp_path / "d")
    assert found.host == made.host
    assert found.cluster == made.cluster
    assert [s.name for s in found.specs()] == [
        "manager", "meta-1", "storage-1", "storage-2", "storage-3",
    ]  # fmt: skip
    assert found.credentials().cluster_id == made.cluster.cluster_id


def test_only_the_owner_reads_the_secret_and_the_chunks(tmp_path: Path) -> None:
    made = make(tmp_path / "d")
    assert stat.S_IMODE(os.stat(made.cluster.secret_file).st_mode) == 0o600
    for private in ("config", "kv", "logs", "run", "storage-1"):
        assert stat.S_IMODE((made.root / private).stat().st_mode) == 0o700


def test_every_server_listens_on_loopback_and_on_a_port_of_its_own(tmp_path: Path) -> None:
    made = make(tmp_path / "d")
    servers = {s.name: s.config for s in made.specs()}
    manager = config.load(servers["manager"], ManagerConfig)
    meta = config.load(servers["meta-1"], MetaConfig)
    nodes = [config.load(servers[f"storage-{n}"], StorageConfig) for n in (1, 2, 3)]
    texts = [*manager.listen, *meta.listen, *(a for node in nodes for a in node.listen)]
    texts += [f"tcp://{manager.grpc}", f"tcp://{meta.grpc}"]
    addresses = [Address.parse(text) for text in texts]
    assert all(a.is_local for a in addresses)
    numbers = [a.port for a in addresses if a.scheme == "tcp"]
    assert len(set(numbers)) == len(numbers) == 7
    assert all(ports.is_free(number) for number in numbers)
    assert manager.cluster == made.cluster
    assert manager.listen == made.cluster.managers


def test_two_clusters_share_nothing(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    assert first.cluster.cluster_id != second.cluster.cluster_id
    assert first.credentials().secret != second.credentials().secret


def test_sockets_of_a_deep_directory_get_a_short_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    made = make(deep)
    sockets = Path(made.host.sockets)
    assert sockets.parent == tmp_path
    assert made.cluster.cluster_id in sockets.name
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    sockets.rmdir()  # as a reboot does
    ClusterDirectory.open(deep).prepare()
    assert sockets.is_dir()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"nodes": 0}, "--nodes"),
        ({"nodes": 65}, "--nodes"),
        ({"replicas": 0}, "--replicas"),
        ({"replicas": 4}, "4 replicas need 4 nodes"),
        ({"chunk_size": 100_000}, "--chunk-size"),
        ({"chunk_size": 128 << 20}, "--chunk-size"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    tmp_path: Path, options: dict[str, int], complaint: str
) -> None:
    with pytest.raises(FsError, match=complaint) as caught:
        make(tmp_path / "d", **options)
    assert caught.value.code is Code.CONFIG
    assert not (tmp_path / "d").exists()


def test_nothing_is_left_when_the_disk_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Path, text: str) -> Path:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(create, "write", full)
    with pytest.raises(FsError, match="No space left") as caught:
        make(tmp_path / "d")
    assert caught.value.code is Code.NO_SPACE
    assert not (tmp_path / "d").exists()


def test_a_start_that_failed_half_way_can_be_repeated(tmp_path: Path) -> None:
    make(tmp_path / "d")
    directory.host_file(tmp_path / "d").unlink()
    for leftover in ("storage-1", "storage-2", "storage-3"):
        (tmp_path / "d" / leftover).rmdir()
    create.check_usable(tmp_path / "d")
    make(tmp_path / "d")


def test_a_directory_with_something_else_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(FsError, match="is not empty"):
        create.check_usable(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FsError, match="is not a directory"):
        create.check_usable(tmp_path / "file")
    with pytest.raises(FsError, match="is not a directory"):
        create.check_usable(tmp_path / "file" / "below")


def test_a_moved_cluster_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "d")
    (tmp_path / "d").rename(tmp_path / "e")
    with pytest.raises(FsError, match="must stay there"):
        ClusterDirectory.open(tmp_path / "e")


def test_mounts_are_kept_with_that_of_up_first(tmp_path: Path) -> None:
    made = make(tmp_path / "d")
    made.add_mount(tmp_path / "other")
    file = made.add_mount(tmp_path / "main", directory.MAIN_MOUNT)
    assert config.load(file, MountConfig).cluster == made.cluster
    specs = made.mount_specs()
    assert [s.mountpoint for s in specs] == [tmp_path / "main", tmp_path / "other"]
    assert len({s.name for s in specs}) == 2
