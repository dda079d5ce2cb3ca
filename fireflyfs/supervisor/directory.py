"""The directory of a cluster on one machine: what lies where, made once and found again.

::

    D/config/host.toml        written last: a directory is a cluster when it has this
             cluster.toml     what every process and client must know
             manager.toml meta-1.toml storage-N.toml
             mounts/*.toml    one for each mount that the supervisor keeps
    D/secret                  0600
    D/kv  D/storage-N         metadata, chunks
    D/logs/NAME.log
    D/run                     sockets, locks, one record for each process
    D/mnt                     the default mount point
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fireflyfs import config
from fireflyfs.config import (
    ClusterConfig,
    ManagerConfig,
    MetaConfig,
    MountConfig,
    StorageConfig,
)
from fireflyfs.errors import Code, FsError
from fireflyfs.net.credentials import Credentials

MAIN_MOUNT = "mount"
_CONFIGS: dict[str, type[ManagerConfig | MetaConfig | StorageConfig | MountConfig]] = {
    "manager": ManagerConfig,
    "meta": MetaConfig,
    "storage": StorageConfig,
    "mount": MountConfig,
}


@dataclass(frozen=True)
class HostConfig:
    """``config/host.toml``: what ``up`` chose when it made the cluster."""

    directory: str
    sockets: str
    """Where the Unix sockets are: ``run``, or a shorter path if that one is too long for them."""
    nodes: int


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process that the supervisor keeps running."""

    name: str
    role: str
    config: Path
    command: tuple[str, ...]
    log: Path
    mountpoint: Path | None = None


class ClusterDirectory:
    """A cluster that exists. Made by ``fireflyfs.supervisor.create``, found by ``open``."""

    def __init__(self, root: Path, host: HostConfig, cluster: ClusterConfig) -> None:
        self.root = root
        self.host = host
        self.cluster = cluster

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def mounts(self) -> Path:
        return self.root / "config" / "mounts"

    @property
    def default_mountpoint(self) -> Path:
        return self.root / "mnt"

    @property
    def cluster_file(self) -> Path:
        return self.root / "config" / "cluster.toml"

    def credentials(self) -> Credentials:
        """Raises FsError(CONFIG)."""
        return Credentials.load(self.cluster.cluster_id, self.cluster.secret_file)

    @classmethod
    def open(cls, root: Path) -> ClusterDirectory:
        """Raises FsError(CONFIG) if there is no cluster, or it was moved here from elsewhere."""
        root = root.resolve()
        if not exists(root):
            raise FsError(
                Code.CONFIG, f"{root} holds no FireflyFS cluster: fireflyfs up --dir {root}"
            )
        host = config.load(host_file(root), HostConfig)
        if host.directory != str(root):
            raise FsError(
                Code.CONFIG,
                f"{root} was made as {host.directory} and must stay there: move it back",
            )
        return cls(root, host, config.load(root / "config" / "cluster.toml", ClusterConfig))

    def prepare(self) -> None:
        """Directories that a reboot or a careful housekeeper may have taken away."""
        for path in (self.run, self.logs, self.mounts):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        private_directory(Path(self.host.sockets))

    def specs(self) -> list[ProcessSpec]:
        """The servers, in the order in which they start."""
        nodes = [f"storage-{n}" for n in range(1, self.host.nodes + 1)]
        return [
            self._spec("manager", "manager"),
            self._spec("meta-1", "meta"),
            *(self._spec(name, "storage") for name in nodes),
        ]

    def mount_specs(self) -> list[ProcessSpec]:
        """The mounts that shall be there now, the one of ``up`` first. Raises FsError(CONFIG)."""
        specs = []
        for file in sorted(self.mounts.glob("*.toml"), key=lambda f: (f.stem != MAIN_MOUNT, f)):
            mountpoint = config.load(file, MountConfig).mountpoint
            command = command_line("serve-mount", "--config", str(file))
            log = self.logs / f"{file.stem}.log"
            specs.append(ProcessSpec(file.stem, "mount", file, command, log, Path(mountpoint)))
        return specs

    def add_mount(self, mountpoint: Path, name: str | None = None) -> Path:
        """Write the configuration of a mount; returns its file."""
        name = name or "mount-" + hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:8]
        made = MountConfig(
            cluster=self.cluster,
            mountpoint=str(mountpoint),
            log_file=str(self.logs / f"{name}.log"),
            allow_other=allows_others(),
        )
        return write(self.mounts / f"{name}.toml", config.dump(made))

    def use_store(self, kv: str) -> None:
        """Write another address of the transactional store into every configuration: for a cluster
        that is down, and whose namespace was moved there. May be repeated if it was interrupted.

        Raises FsError(CONFIG), OSError.
        """
        self.cluster = dataclasses.replace(self.cluster, kv=kv)
        for spec in (*self.specs(), *self.mount_specs()):
            loaded = config.load(spec.config, _CONFIGS[spec.role])
            changed = dataclasses.replace(loaded, cluster=self.cluster)
            write(spec.config, config.dump(changed))
        write(self.cluster_file, config.dump(self.cluster))

    def _spec(self, name: str, role: str) -> ProcessSpec:
        file = self.root / "config" / f"{name}.toml"
        command = command_line(role, "serve", "--config", str(file))
        return ProcessSpec(name, role, file, command, self.logs / f"{name}.log")


def exists(root: Path) -> bool:
    return host_file(root).is_file()


def host_file(root: Path) -> Path:
    return root / "config" / "host.toml"


def command_line(*words: str) -> tuple[str, ...]:
    """This very Python running the command line; -P keeps the working directory off its path."""
    return (sys.executable, "-P", "-m", "fireflyfs.cli", *words)


def allows_others() -> bool:
    """Other users may enter the mount: root may say so, others only with leave of fuse.conf."""
    if os.geteuid() == 0:
        return True
    try:
        lines = Path("/etc/fuse.conf").read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def write(file: Path, text: str) -> Path:
    """Replace a file in one step: a reader sees the old text or the new one. Raises OSError."""
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as draft:
        draft.write(text)
    os.replace(draft.name, file)
    return file


def private_directory(path: Path) -> None:
    """Make it 0700 and ours. Raises FsError(CONFIG) if somebody else made it first."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if not ours or status.st_mode & 0o077:
        raise FsError(Code.CONFIG, f"{path} must be a directory of ours with mode 0700")
