"""What a cluster looks like from its machine: records, the manager's status, the mount table."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from fireflyfs.errors import Code, FsError
from fireflyfs.net.client import Peers
from fireflyfs.rpc import cluster_pb2
from fireflyfs.rpc.channel import FramedChannel
from fireflyfs.rpc.methods import ClusterRpc, Rep, Req, Rpc
from fireflyfs.supervisor import mountpoint
from fireflyfs.supervisor.keeper import SUPERVISOR, Record, read_record

if TYPE_CHECKING:
    from pathlib import Path

    from fireflyfs.supervisor.directory import ClusterDirectory

STATUS_SECONDS = 3.0
PROBE_SECONDS = 5.0


@dataclass(slots=True)
class MountView:
    point: Path
    mounted: bool
    answers: bool
    size: int = 0
    """Bytes, as statfs(2) says."""
    free: int = 0


@dataclass(slots=True)
class View:
    records: list[Record]
    mounts: list[MountView]
    status: cluster_pb2.GetStatusReply | None
    problem: str
    """Why ``status`` is None."""
    nodes_expected: int

    @property
    def anything_runs(self) -> bool:
        return any(r.alive for r in self.records) or any(m.mounted for m in self.mounts)

    def waits_for(self) -> str:
        """What is missing until the cluster is whole, for people; empty if it is."""
        if self.status is None:
            return f"the manager ({self.problem})"
        alive = [n.node for n in self.status.nodes if n.node.alive]
        storage = sum(n.role == cluster_pb2.STORAGE for n in alive)
        if not any(n.role == cluster_pb2.META for n in alive):
            return "the metadata server"
        if storage < self.nodes_expected:
            return f"storage nodes: {storage} of {self.nodes_expected} are here"
        chains = self.status.chains
        whole = sum(is_whole(chain) for chain in chains)
        if not chains or whole < len(chains):
            return f"chains: {whole} of {len(chains)} are whole"
        for mount in self.mounts:
            if not mount.answers:
                return f"the mount {mount.point}"
        return ""


def is_whole(chain: cluster_pb2.ChainStatus) -> bool:
    """Every replica serves, and says itself that it is up to date."""
    return all(
        t.target.state == cluster_pb2.SERVING and t.report.state == cluster_pb2.LOCAL_UPTODATE
        for t in chain.targets
    )


def can_serve(status: cluster_pb2.GetStatusReply) -> bool:
    """A mount can work: a metadata server is there, and chains to put files on."""
    metas = (n for n in status.nodes if n.node.alive and n.node.role == cluster_pb2.META)
    return bool(status.chains) and next(metas, None) is not None


async def look(directory: ClusterDirectory) -> View:
    """Never hangs: every question has a deadline. Raises FsError(CONFIG)."""
    specs = [*directory.specs(), *directory.mount_specs()]
    named = [(SUPERVISOR, SUPERVISOR), *((spec.name, spec.role) for spec in specs)]
    records = [read_record(directory.run / f"{name}.json") or Record(name, r) for name, r in named]
    status, problem = None, ""
    try:
        status = await fetch_status(directory)
    except FsError as error:
        if error.code is Code.CONFIG:
            raise
        problem = str(error)
    points = [spec.mountpoint for spec in specs if spec.mountpoint is not None]
    mounts = [await _look_at_mount(point) for point in points]
    return View(records, mounts, status, problem, directory.host.nodes)


async def fetch_status(directory: ClusterDirectory) -> cluster_pb2.GetStatusReply:
    """Raises FsError: CONFIG (the secret), UNREACHABLE, TIMED_OUT, or what the manager answered."""
    request = cluster_pb2.GetStatusRequest(cluster_id=directory.cluster.cluster_id)
    return await ask_manager(directory, ClusterRpc.GET_STATUS, request)


async def create_chains(directory: ClusterDirectory) -> None:
    """Lay chains over all targets that are on none. Raises FsError."""
    cluster = directory.cluster
    request = cluster_pb2.CreateChainsRequest(
        cluster_id=cluster.cluster_id, replicas=cluster.replicas
    )
    await ask_manager(directory, ClusterRpc.CREATE_CHAINS, request)


async def ask_manager(directory: ClusterDirectory, rpc: Rpc[Req, Rep], request: Req) -> Rep:
    """One question over a connection of its own. Raises FsError."""
    credentials = directory.credentials()
    failure: FsError | None = None
    async with trio.open_nursery() as nursery:
        peers = Peers(nursery, credentials)
        channel = FramedChannel(peers, directory.cluster.managers)
        try:
            reply = await channel.call(rpc, request, timeout=STATUS_SECONDS)
        except FsError as error:
            failure = error  # raised outside: in here it would come out in an exception group
        await peers.aclose()
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return reply


async def _look_at_mount(point: Path) -> MountView:
    mount = mountpoint.mounted_at(point)
    if mount is None or not mount.is_ours:
        return MountView(point, mounted=False, answers=False)
    # A thread: statvfs waits for the file system's server. Abandoned if that never answers.
    try:
        with trio.fail_after(PROBE_SECONDS):
            space = await trio.to_thread.run_sync(os.statvfs, point, abandon_on_cancel=True)
    except (OSError, trio.TooSlowError):
        return MountView(point, mounted=True, answers=False)
    size, free = space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize
    return MountView(point, mounted=True, answers=True, size=size, free=free)
