"""One metadata server, from its configuration to its place in the cluster."""

from __future__ import annotations

import os
import secrets
from functools import partial
from typing import TYPE_CHECKING

import trio

from fireflyfs.client.cluster import open_cluster
from fireflyfs.client.storage import StorageClient
from fireflyfs.clock import file_time_ns
from fireflyfs.ids import Generation
from fireflyfs.kv.open import open_engine
from fireflyfs.net import server as frames
from fireflyfs.net.address import Address
from fireflyfs.net.client import Peers
from fireflyfs.net.credentials import Credentials
from fireflyfs.rpc.channel import FramedChannel
from fireflyfs.rpc.control import ControlPlane
from fireflyfs.rpc.server import serve_grpc
from meta_service.background import work
from meta_service.handlers import MetaService
from meta_service.inodes import InodeIds, Layouts, ensure_root
from meta_service.membership import beat_of, heartbeat, register
from meta_service.operation import Operations
from meta_service.sessions import Clients
from meta_service.statfs import Space

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Never

    from fireflyfs.client.cluster import Cluster
    from fireflyfs.config import MetaConfig
    from fireflyfs.ids import ChainId
    from fireflyfs.kv.base import Engine

GARBAGE_DEADLINE = 5.0
"""Seconds for one request about chunks in the background; what fails has its turn again."""


async def serve(
    config: MetaConfig, *, task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED
) -> Never:
    """Serve the namespace until cancelled; ``started`` (the addresses) once the manager knows us.

    Raises:
        FsError: ``CONFIG`` for what cannot be used (store, secret, address); what the manager last
        answered, when it cannot be joined.
    """
    cluster = config.cluster
    credentials = Credentials.load(cluster.cluster_id, cluster.secret_file)
    generation = Generation(secrets.randbits(63))
    engine = await open_engine(cluster.kv)
    try:
        await ensure_root(engine, file_time_ns(), os.getuid(), os.getgid())
        node_id = await _register(config, credentials)
        async with open_cluster(cluster) as joined, trio.open_nursery() as nursery:
            control = ControlPlane(_service(engine, joined).handlers())
            listen = [Address.parse(address) for address in config.listen]
            bound = await nursery.start(partial(frames.serve, listen, credentials, control.handle))
            await nursery.start(partial(serve_grpc, control, config.grpc, credentials))
            addresses = [str(address) for address in bound]
            beat = beat_of(cluster.cluster_id, node_id, generation, config.name, addresses)
            await nursery.start(heartbeat, joined.manager, beat)
            storage = StorageClient(joined, deadline=GARBAGE_DEADLINE)
            nursery.start_soon(work, engine, storage, generation)
            task_status.started(bound)
    finally:
        with trio.CancelScope(shield=True):
            await engine.close()
    raise AssertionError("unreachable")


async def _register(config: MetaConfig, credentials: Credentials) -> int:
    """Before joining as a client: a manager has no routing to give while it knows no node."""
    async with trio.open_nursery() as nursery:
        peers = Peers(nursery, credentials)
        manager = FramedChannel(peers, config.cluster.managers)
        node_id = await register(manager, config.cluster.cluster_id, config.name)
        await peers.aclose()
        nursery.cancel_scope.cancel()
    return node_id


def _service(engine: Engine, cluster: Cluster) -> MetaService:
    layouts = Layouts(cluster.config.chunk_size, writable_chains(cluster))
    operations = Operations(engine, InodeIds(engine), layouts)
    space = Space(cluster.manager, cluster.config.cluster_id)
    return MetaService(engine, operations, Clients(engine), space)


def writable_chains(cluster: Cluster) -> Callable[[], Sequence[ChainId]]:
    """The chains that serve now, from the newest routing; computed once for each version of it."""
    version = -1
    found: Sequence[ChainId] = ()

    def chains() -> Sequence[ChainId]:
        nonlocal version, found
        routing = cluster.routing
        if routing.version != version:
            served = sorted(c.chain_id for c in routing.chains.values() if c.head is not None)
            version, found = routing.version, served
        return found

    return chains
