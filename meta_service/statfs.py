"""How much space there is, as the manager hears it from the storage nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from fireflyfs.kv.atomic import unpack_signed
from fireflyfs.rpc.cluster_pb2 import GetStatusReply, GetStatusRequest
from fireflyfs.rpc.methods import ClusterRpc
from meta_service import rows

if TYPE_CHECKING:
    from fireflyfs.kv.base import Transaction
    from fireflyfs.rpc.channel import Channel
    from fireflyfs.rpc.cluster_pb2 import ChainStatus

FRESH_SECONDS = 3.0
TIMEOUT = 2.0


class Space:
    """The cluster's capacity, asked for at most every ``FRESH_SECONDS``."""

    def __init__(self, manager: Channel, cluster_id: str) -> None:
        self._manager = manager
        self._cluster_id = cluster_id
        self._lock = trio.Lock()
        self._known = (0, 0)
        self._until = 0.0

    async def measure(self) -> tuple[int, int]:
        """(capacity, available), bytes that users can store.

        Raises:
            FsError: when the manager does not answer.
        """
        async with self._lock:
            if trio.current_time() >= self._until:
                request = GetStatusRequest(cluster_id=self._cluster_id)
                reply = await self._manager.call(ClusterRpc.GET_STATUS, request, timeout=TIMEOUT)
                self._known = usable(reply)
                self._until = trio.current_time() + FRESH_SECONDS
            return self._known


def usable(status: GetStatusReply) -> tuple[int, int]:
    """(capacity, available) over all chains. Every replica holds the same bytes, so a chain has
    what its smallest target has: that is raw space divided by replicas where targets are equal."""
    spaces = [_of_chain(chain) for chain in status.chains]
    return sum(capacity for capacity, _ in spaces), sum(free for _, free in spaces)


def _of_chain(chain: ChainStatus) -> tuple[int, int]:
    reports = [t.report for t in chain.targets if t.report.capacity_bytes]
    capacities = [r.capacity_bytes for r in reports]
    free = [max(r.capacity_bytes - r.used_bytes, 0) for r in reports]
    return min(capacities, default=0), min(free, default=0)


async def count_inodes(tr: Transaction) -> int:
    shards = [rows.count_key(shard) for shard in range(rows.COUNT_SHARDS)]
    return sum(map(unpack_signed, await tr.get_many(shards, snapshot=True)))
