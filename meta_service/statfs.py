"""How much space there is, as the manager hears it from the storage nodes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from fireflyfs.errors import FsError
from fireflyfs.kv.atomic import unpack_signed
from fireflyfs.rpc.cluster_pb2 import GetStatusReply, GetStatusRequest
from fireflyfs.rpc.methods import ClusterRpc
from meta_service import rows

if TYPE_CHECKING:
    from fireflyfs.kv.base import Transaction
    from fireflyfs.rpc.channel import Channel

logger = logging.getLogger(__name__)

FRESH_SECONDS = 3.0
TIMEOUT = 2.0


class Space:
    """The cluster's capacity, asked for at most every ``FRESH_SECONDS``."""

    def __init__(self, manager: Channel, cluster_id: str) -> None:
        self._manager = manager
        self._cluster_id = cluster_id
        self._lock = trio.Lock()
        self._known: tuple[int, int] | None = None
        self._until = 0.0

    async def measure(self) -> tuple[int, int]:
        """(capacity, available), bytes that users can store; the last known while the manager is
        away.

        Raises:
            FsError: when the manager has never answered.
        """
        async with self._lock:
            if self._known is None or trio.current_time() >= self._until:
                self._known = await self._ask()
                self._until = trio.current_time() + FRESH_SECONDS
            return self._known

    async def _ask(self) -> tuple[int, int]:
        request = GetStatusRequest(cluster_id=self._cluster_id)
        try:
            reply = await self._manager.call(ClusterRpc.GET_STATUS, request, timeout=TIMEOUT)
        except FsError as error:
            if self._known is None:
                raise
            logger.warning("the manager does not say how much space there is: %s", error)
            return self._known
        return usable(reply)


def usable(status: GetStatusReply) -> tuple[int, int]:
    """(capacity, available): raw space divided by replicas.

    Targets may share a disk: each reports its own use, and all that is free there.
    """
    used = replicas = 0
    free: dict[str, int] = {}
    for item in (target for chain in status.chains for target in chain.targets):
        report = item.report
        replicas += 1
        used += report.used_bytes
        disk = report.disk or f"node {item.target.node_id}"
        free[disk] = max(free.get(disk, 0), report.capacity_bytes - report.used_bytes)
    if not replicas:
        return 0, 0
    chains, available = len(status.chains), sum(free.values())
    return (used + available) * chains // replicas, available * chains // replicas


async def count_inodes(tr: Transaction) -> int:
    shards = [rows.count_key(shard) for shard in range(rows.COUNT_SHARDS)]
    return sum(map(unpack_signed, await tr.get_many(shards, snapshot=True)))
