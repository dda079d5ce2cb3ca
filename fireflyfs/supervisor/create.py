"""Making a cluster's directory: all of it, or nothing is left behind."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from fireflyfs import config, limits
from fireflyfs.config import ClusterConfig, ManagerConfig, MetaConfig, StorageConfig
from fireflyfs.errors import Code, FsError
from fireflyfs.kv.fdb_place import Place
from fireflyfs.net.credentials import Credentials
from fireflyfs.supervisor import ports
from fireflyfs.supervisor.directory import ClusterDirectory, HostConfig, host_file, write

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_NODES = 64
MAX_SOCKET_PATH = 107
"""Bytes in a Unix socket's path (unix(7))."""
_LONGEST_SOCKET = f"storage-{MAX_NODES}.sock"
_MADE_HERE = ("config", "kv", "logs", "run", "secret", "mnt")
_MAY_BE_THERE = {*_MADE_HERE, "lost+found"}


def check_usable(root: Path) -> None:
    """Raises FsError(CONFIG) unless a new cluster may be made in ``root``. Changes nothing."""
    if not os.path.lexists(root):
        above = next(p for p in root.parents if p.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise _refused(f"cannot make {root}: {above} is not a directory that we may write")
        return
    if not root.is_dir():
        raise _refused(f"{root} is not a directory")
    if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        raise _refused(f"{root} is not ours to write")
    others = {entry.name for entry in root.iterdir()} - _MAY_BE_THERE
    if others:
        raise _refused(
            f"{root} is not empty (it holds {min(others)!r}) and holds no FireflyFS cluster"
        )


def create(
    root: Path, *, nodes: int, replicas: int, chunk_size: int, kv: str | None = None
) -> ClusterDirectory:
    """Make a cluster's directory with its secret and the configuration of every server.

    Its namespace is in ``kv``, else in the directory. Raises FsError(CONFIG) for values that cannot
    be, FsError(NO_SPACE) or FsError(TARGET_FAILED) if the disk refuses.
    """
    root = root.resolve()
    _check_numbers(nodes, replicas, chunk_size)
    cluster_id = secrets.token_hex(8)
    sockets = _socket_directory(root / "run", cluster_id)
    numbers = iter(ports.free_ports(nodes + 4))
    servers = ("manager", "meta-1", *(f"storage-{n}" for n in range(1, nodes + 1)))
    listen = {
        name: (f"unix://{sockets}/{name}.sock", f"tcp://127.0.0.1:{next(numbers)}")
        for name in servers
    }
    cluster = ClusterConfig(
        cluster_id=cluster_id,
        secret_file=str(root / "secret"),
        kv=f"embedded:{root / 'kv'}" if kv is None else own_store(kv, cluster_id),
        managers=listen["manager"],
        chunk_size=chunk_size,
        replicas=replicas,
    )
    made = ClusterDirectory(root, HostConfig(str(root), str(sockets), nodes), cluster)
    existed = root.exists()
    try:
        _fill(made, listen, numbers)
    except OSError as error:
        remove(made, keep_root=existed)
        code = Code.NO_SPACE if error.errno == errno.ENOSPC else Code.TARGET_FAILED
        raise FsError(code, f"cannot make {root}: {error.strerror}") from None
    return made


def remove(made: ClusterDirectory, *, keep_root: bool) -> None:
    """Take away a cluster that never served: for the caller whose next step failed."""
    for name in (*_MADE_HERE, *(f"storage-{n}" for n in range(1, made.host.nodes + 1))):
        path = made.root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    shutil.rmtree(made.host.sockets, ignore_errors=True)
    if not keep_root:
        shutil.rmtree(made.root, ignore_errors=True)


def _check_numbers(nodes: int, replicas: int, chunk_size: int) -> None:
    low, high = limits.MIN_CHUNK_SIZE, limits.MAX_CHUNK_SIZE
    if not 1 <= nodes <= MAX_NODES:
        raise _refused(f"--nodes must be 1 to {MAX_NODES}, not {nodes}")
    if not 1 <= replicas <= limits.MAX_REPLICAS:
        raise _refused(f"--replicas must be 1 to {limits.MAX_REPLICAS}, not {replicas}")
    if replicas > nodes:
        raise _refused(f"{replicas} replicas need {replicas} nodes: give --nodes or --replicas")
    if not low <= chunk_size <= high or chunk_size & (chunk_size - 1):
        raise _refused(
            f"--chunk-size must be a power of two from {low >> 10}KiB to {high >> 20}MiB"
        )


def own_store(kv: str, cluster_id: str) -> str:
    """The address with the cluster's own prefix, if it is a FoundationDB without one: clusters that
    share it do not meet. Raises FsError(CONFIG) for what no two processes can share."""
    if not kv.startswith(("fdb:", "embedded:/")):
        raise _refused(
            f"no cluster can be kept in {kv!r}: fdb:/PATH/TO/fdb.cluster is one that can"
        )
    if kv.startswith("embedded:"):
        return kv
    return str(Place.parse(kv if "?" in kv else f"{kv}?prefix=fireflyfs-{cluster_id}"))


def _fill(
    made: ClusterDirectory, listen: Mapping[str, tuple[str, ...]], grpc: Iterator[int]
) -> None:
    made.root.mkdir(parents=True, exist_ok=True)
    servers = [name for name in listen if name.startswith("storage-")]
    for name in ("config", "kv", *servers):
        (made.root / name).mkdir(mode=0o700, exist_ok=True)
    made.prepare()
    (made.root / "secret").unlink(missing_ok=True)  # of a start that failed half-way
    Credentials.create(made.root / "secret")

    def put(name: str, value: object) -> None:
        write(made.root / "config" / f"{name}.toml", config.dump(value))

    def log(name: str) -> str:
        return str(made.logs / f"{name}.log")

    put("cluster", made.cluster)
    put(
        "manager",
        ManagerConfig(made.cluster, listen["manager"], f"127.0.0.1:{next(grpc)}", log("manager")),
    )
    put(
        "meta-1",
        MetaConfig(
            made.cluster, "meta-1", listen["meta-1"], f"127.0.0.1:{next(grpc)}", log("meta-1")
        ),
    )
    for name in servers:
        directory = str(made.root / name)
        put(
            name,
            StorageConfig(made.cluster, name, listen[name], directory, log_file=log(name)),
        )
    write(host_file(made.root), config.dump(made.host))


def _socket_directory(run: Path, cluster_id: str) -> Path:
    """``run``, or a place with a shorter name if the sockets' paths would not fit there."""
    if len(os.fsencode(run / _LONGEST_SOCKET)) <= MAX_SOCKET_PATH:
        return run
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.access(base, os.W_OK):
        return Path(base) / f"fireflyfs-{cluster_id}"
    return Path(f"/tmp/fireflyfs-{cluster_id}")  # 0700, and the id is random


def _refused(message: str) -> FsError:
    return FsError(Code.CONFIG, message)
