"""A client's view of the cluster: who it is, whom it talks to, and the newest routing table."""

from __future__ import annotations

import contextlib
import logging
import secrets
from typing import TYPE_CHECKING

import trio

from fireflyfs.errors import Code, FsError
from fireflyfs.ids import ClientId
from fireflyfs.net.client import Peers
from fireflyfs.net.credentials import Credentials
from fireflyfs.routing import Routing
from fireflyfs.rpc.channel import FramedChannel
from fireflyfs.rpc.cluster_pb2 import GetRoutingRequest
from fireflyfs.rpc.convert import routing_from_proto
from fireflyfs.rpc.methods import ClusterRpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fireflyfs.config import ClusterConfig
    from fireflyfs.rpc.channel import Channel

logger = logging.getLogger(__name__)

LONG_POLL = 10.0
"""Seconds that the manager may hold a request for routing that is not there yet."""
ANSWER = 5.0
"""Seconds beyond that after which the manager counts as gone."""
MANAGER_PAUSE = 0.25
"""Seconds between two attempts to reach the manager."""
START_DEADLINE = 30.0
"""Seconds that a starting process waits for the first routing table."""


class Cluster:
    """Shared by everything in one process that talks to the cluster.

    The table only gets newer. When the manager is away the last one goes on being used: the data
    plane does not depend on the manager being there.
    """

    def __init__(
        self, config: ClusterConfig, peers: Peers, manager: Channel, client_id: ClientId
    ) -> None:
        self.config = config
        self.peers = peers
        self.manager = manager
        self.client_id = client_id
        self._routing = Routing(cluster_id=config.cluster_id)
        self._changed = trio.Event()

    @property
    def routing(self) -> Routing:
        return self._routing

    def adopt(self, routing: Routing) -> None:
        """Take a table that is newer than the one held; wake who waits for it.

        Raises:
            FsError: ``WRONG_CLUSTER``.
        """
        if routing.cluster_id != self.config.cluster_id:
            ours, theirs = self.config.cluster_id, routing.cluster_id
            raise FsError(Code.WRONG_CLUSTER, f"the manager serves {theirs!r}, not {ours!r}")
        if routing.version > self._routing.version:
            self._routing = routing
            self._changed.set()
            self._changed = trio.Event()

    async def refresh(self, newer_than: int, timeout: float) -> None:
        """Wait for a table newer than version ``newer_than``, at most ``timeout`` seconds."""
        with trio.move_on_after(timeout):
            while self._routing.version <= newer_than:
                await self._changed.wait()

    async def follow(self) -> None:
        """Keep the table fresh, for ever: one long poll after the other."""
        is_heard = True
        while True:
            try:
                await self._poll(LONG_POLL)
            except FsError as error:
                if error.code is Code.WRONG_CLUSTER:
                    raise
                if is_heard:
                    logger.warning("no routing from the manager: %s", error)
                is_heard = False
                await trio.sleep(MANAGER_PAUSE)
            else:
                if not is_heard:
                    logger.info("the manager gives routing again")
                is_heard = True

    async def _poll(self, wait: float) -> None:
        request = GetRoutingRequest(
            cluster_id=self.config.cluster_id,
            known_version=self._routing.version,
            wait_seconds=wait,
        )
        reply = await self.manager.call(ClusterRpc.GET_ROUTING, request, timeout=wait + ANSWER)
        if reply.HasField("routing"):
            self.adopt(routing_from_proto(reply.routing))

    async def start(self) -> None:
        """Get the first table.

        Raises:
            FsError: what the manager last answered, after ``START_DEADLINE`` seconds; at once what
                no patience mends (wrong credentials, wrong cluster).
        """
        until = trio.current_time() + START_DEADLINE
        while not self._routing.version:
            try:
                await self._poll(1.0)
            except FsError as error:
                if not error.retry or trio.current_time() >= until:
                    managers = ", ".join(self.config.managers)
                    raise FsError(
                        error.code, f"no routing from the manager ({managers})"
                    ) from error
                await trio.sleep(MANAGER_PAUSE)


@contextlib.asynccontextmanager
async def open_cluster(config: ClusterConfig) -> AsyncIterator[Cluster]:
    """Join a cluster as a client: routing is there on entry and followed until exit.

    Raises:
        FsError: ``CONFIG`` for unusable credentials, or why the manager gave no routing.
    """
    credentials = Credentials.load(config.cluster_id, config.secret_file)
    async with trio.open_nursery() as nursery:
        peers = Peers(nursery, credentials)
        manager = FramedChannel(peers, config.managers)
        cluster = Cluster(config, peers, manager, ClientId(secrets.randbits(63)))
        try:
            await cluster.start()
            nursery.start_soon(cluster.follow)
            yield cluster
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await peers.aclose()
