"""The manager as a process: store, listeners and the manager itself, put together."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import trio

from chain_replication.manager.handlers import ClusterService
from chain_replication.manager.loop import Manager
from chain_replication.manager.store import Store
from fireflyfs.kv.open import open_engine
from fireflyfs.net.address import Address
from fireflyfs.net.credentials import Credentials
from fireflyfs.net.server import serve as serve_frames
from fireflyfs.rpc.server import serve_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fireflyfs.config import ManagerConfig
    from fireflyfs.kv.base import Engine


class Listening(NamedTuple):
    addresses: list[Address]
    grpc_port: int


async def serve(
    config: ManagerConfig,
    *,
    task_status: trio.TaskStatus[Listening] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Be the cluster's manager until cancelled; ``started`` once in office.

    Listens before it takes over, so that a second manager started by mistake on the same addresses
    fails and leaves the first alone.

    Errors:
        FsError: ``CONFIG`` for addresses, a secret or a store that cannot be used; ``NOT_SERVING``
        when another manager has taken over.
    """
    cluster = config.cluster
    credentials = Credentials.load(cluster.cluster_id, cluster.secret_file)
    addresses = [Address.parse(address) for address in config.listen]
    service = ClusterService(cluster.cluster_id)
    control = service.control_plane()
    async with _engine(cluster.kv) as engine, trio.open_nursery() as nursery:
        bound = await nursery.start(serve_frames, addresses, credentials, control.handle)
        port = await nursery.start(serve_grpc, control, config.grpc, credentials)
        term = secrets.token_bytes(8)
        manager = await Manager.open(Store(engine, cluster.cluster_id, term))
        nursery.start_soon(manager.run)
        service.open(manager)
        task_status.started(Listening(bound, port))


@asynccontextmanager
async def _engine(url: str) -> AsyncIterator[Engine]:
    engine = await open_engine(url)
    try:
        yield engine
    finally:
        with trio.CancelScope(shield=True):
            await engine.close()
