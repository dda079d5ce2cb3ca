"""A storage node as a process: stores, protocol, listeners and the manager, put together."""

from __future__ import annotations

import logging
import secrets
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from fireflyfs.ids import Generation
from fireflyfs.net import server as frames
from fireflyfs.net.address import Address
from fireflyfs.net.client import Peers
from fireflyfs.net.credentials import Credentials
from fireflyfs.rpc.channel import FramedChannel
from storage_service import node
from storage_service.handlers import Handlers
from storage_service.heartbeat import Bell, Membership
from storage_service.lease import Lease
from storage_service.neighbours import Neighbours
from storage_service.targets import Targets

if TYPE_CHECKING:
    from typing import Never

    from fireflyfs.config import StorageConfig

logger = logging.getLogger(__name__)


async def serve(
    config: StorageConfig,
    *,
    task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED,
) -> Never:
    """Serve this node's targets until cancelled; ``started`` (the addresses) once the manager has
    heard the first heartbeat.

    Raises FsError: CONFIG for what cannot be used (secret, address, directory); what the manager
    last answered, when it cannot be joined.
    """
    cluster = config.cluster
    credentials = Credentials.load(cluster.cluster_id, cluster.secret_file)
    listen = [Address.parse(address) for address in config.listen]
    directory = Path(config.directory)
    known = node.recall(directory, config)
    async with trio.open_nursery() as network:
        peers = Peers(network, credentials)
        manager = FramedChannel(peers, cluster.managers)
        record, before = await node.establish(directory, known, config, manager)
        node_id, target_ids = node.ids(record)
        targets = Targets(node_id, Generation(secrets.randbelow((1 << 63) - 1) + 1))
        neighbours, lease, bell = Neighbours(peers, cluster.cluster_id), Lease(), Bell()
        member = Membership(
            manager, cluster.cluster_id, config.name, targets, neighbours, lease, bell
        )
        try:
            async with trio.open_nursery() as nursery:
                await targets.open(
                    directory,
                    cluster.cluster_id,
                    target_ids,
                    nursery,
                    neighbours,
                    bell.ring,
                    before=before,
                )
                handler = Handlers(targets, neighbours, lease)
                bound = await nursery.start(
                    partial(frames.serve, listen, credentials, handler.handle)
                )
                nursery.start_soon(member.follow_routing)
                await nursery.start(member.beat, [str(address) for address in bound])
                logger.info("serving", extra={"node": node_id, "targets": len(target_ids)})
                task_status.started(bound)
                try:
                    await trio.sleep_forever()
                finally:
                    targets.stop()
        finally:
            with trio.CancelScope(shield=True):
                await targets.close()
    raise AssertionError("unreachable")
