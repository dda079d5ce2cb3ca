"""Talking with the manager: heartbeats, the lease that they bring, and routing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Never

import trio

from fireflyfs.errors import Code, FsError
from fireflyfs.limits import HEARTBEAT_INTERVAL
from fireflyfs.rpc import cluster_pb2 as pb
from fireflyfs.rpc.convert import routing_from_proto
from fireflyfs.rpc.methods import ClusterRpc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fireflyfs.rpc.channel import Channel
    from storage_service.lease import Lease
    from storage_service.neighbours import Neighbours
    from storage_service.targets import Targets

logger = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
"""For one heartbeat: a later answer would bring a lease that is nearly over."""
RETRY_SECONDS = 0.25
POLL_SECONDS = 10.0


class Bell:
    """Rung when the manager should hear of a change at once."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, timeout: float) -> None:
        with trio.move_on_after(timeout):
            await self._rung.wait()
        self._rung = trio.Event()


class Membership:
    def __init__(
        self,
        manager: Channel,
        cluster_id: str,
        name: str,
        targets: Targets,
        neighbours: Neighbours,
        lease: Lease,
        bell: Bell,
    ) -> None:
        self._manager = manager
        self._cluster_id = cluster_id
        self._name = name
        self._targets = targets
        self._neighbours = neighbours
        self._lease = lease
        self._bell = bell
        self._is_heard = True

    async def beat(
        self,
        addresses: Sequence[str],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> Never:
        """A heartbeat each second and at every change; ``started`` after the first that was heard.

        Raises FsError: WRONG_CLUSTER; SUPERSEDED, when the manager takes another process for a
        later start of this node (rightly, or because a word of a former one came late): it will
        not hear this one again, but it will hear the next.
        """
        while True:
            self._targets.tick()
            heard = await self._beat_once(addresses)
            if heard:
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
            await self._bell.wait(HEARTBEAT_INTERVAL if heard else RETRY_SECONDS)

    async def _beat_once(self, addresses: Sequence[str]) -> bool:
        request = pb.HeartbeatRequest(
            cluster_id=self._cluster_id,
            node_id=self._targets.node_id,
            generation=self._targets.generation,
            role=pb.STORAGE,
            name=self._name,
            addresses=addresses,
            targets=self._targets.report(),
        )
        sent = trio.current_time()
        try:
            reply = await self._manager.call(ClusterRpc.HEARTBEAT, request, timeout=BEAT_SECONDS)
        except FsError as error:
            if error.code in (Code.WRONG_CLUSTER, Code.SUPERSEDED):
                raise
            if self._is_heard:
                logger.warning("the manager does not hear us: %s", error)
            self._is_heard = False
            return False
        if not self._is_heard:
            logger.info("the manager hears us again")
        self._is_heard = True
        self._lease.extend(sent, reply.lease_seconds)
        return True

    async def follow_routing(self) -> Never:
        """Ask for newer routing, for ever, and tell the targets."""
        while True:
            try:
                await self._poll()
            except FsError as error:
                if error.code is Code.WRONG_CLUSTER:
                    raise
                logger.debug("no routing: %s", error)
                await trio.sleep(RETRY_SECONDS)

    async def _poll(self) -> None:
        known = self._neighbours.routing.version
        request = pb.GetRoutingRequest(
            cluster_id=self._cluster_id, known_version=known, wait_seconds=POLL_SECONDS
        )
        reply = await self._manager.call(
            ClusterRpc.GET_ROUTING, request, timeout=POLL_SECONDS + BEAT_SECONDS
        )
        if not reply.HasField("routing"):
            return
        routing = routing_from_proto(reply.routing)
        if routing.version <= known:
            # An answer that ignores what we know must not make us ask without a pause.
            raise FsError(Code.ROUTING_STALE, f"the manager is at routing {routing.version}")
        self._neighbours.routing = routing
        self._targets.follow(routing)
