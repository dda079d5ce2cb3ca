"""Calls to the metadata service: any live server, retried as the same request."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, TypeVar

import trio
from google.protobuf.message import Message

from fireflyfs.client.attempts import DEADLINE, Attempts
from fireflyfs.clock import since_boot
from fireflyfs.errors import Code, FsError
from fireflyfs.routing import Role
from fireflyfs.rpc.channel import FramedChannel
from fireflyfs.rpc.meta_pb2 import KeepAliveRequest
from fireflyfs.rpc.methods import MetaRpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fireflyfs.client.cluster import Cluster
    from fireflyfs.ids import NodeId
    from fireflyfs.routing import Node, Routing
    from fireflyfs.rpc.methods import Rpc

logger = logging.getLogger(__name__)

Req = TypeVar("Req", bound=Message)
Rep = TypeVar("Rep", bound=Message)

ONE_ATTEMPT = 8.0
"""Seconds for one server to answer: more than the 5 s that a transaction may take there."""
KEEP_ALIVE_INTERVAL = 10.0
SILENCE = 40.0
"""Seconds without a word after which the servers may soon end the sessions of this client."""


class MetaClient:
    """Stays with one server while it answers, moves to another when it does not."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._request_ids = itertools.count(1)
        self._current: NodeId | None = None

    async def call(self, rpc: Rpc[Req, Rep], request: Req, *, deadline: float = DEADLINE) -> Rep:
        """Ask until it is answered, at most ``deadline`` seconds.

        A request with a ``caller`` gets this client's id and a request id, the same in every
        attempt: the servers answer a repeated request with what they answered first.

        Raises:
            FsError: the server's answer; or, at the deadline, the last failure.
        """
        self._sign(request)
        attempts = Attempts(self._cluster, rpc.name, deadline)
        while True:
            routing = self._cluster.routing
            try:
                node = self._choose(routing)
                channel = FramedChannel(self._cluster.peers, node.addresses)
                return await channel.call(rpc, request, timeout=attempts.timeout(ONE_ATTEMPT))
            except FsError as error:
                if error.code in (Code.UNREACHABLE, Code.TIMED_OUT):
                    self._leave(routing)
                await attempts.failed(error, routing.version)

    def _sign(self, request: Message) -> None:
        if "caller" in request.DESCRIPTOR.fields_by_name:
            caller = request.caller  # type: ignore[attr-defined]
            caller.client_id = self._cluster.client_id
            caller.request_id = next(self._request_ids)

    def _choose(self, routing: Routing) -> Node:
        servers = _servers(routing)
        if not servers:
            raise FsError(Code.UNREACHABLE, f"no metadata server is in routing {routing.version}")
        return next((n for n in servers if n.node_id == self._current), servers[0])

    def _leave(self, routing: Routing) -> None:
        """Go on with the server after the current one, so that all get their turn."""
        ids = [node.node_id for node in _servers(routing)]
        if not ids:
            return
        index = ids.index(self._current) if self._current in ids else 0
        self._current = ids[(index + 1) % len(ids)]

    async def keep_alive(
        self, host: str, mountpoint: str, after_silence: Callable[[], Awaitable[None]]
    ) -> None:
        """Tell the servers for ever that this client lives, so that its open files stay open;
        ``after_silence`` is to see to it when that may have failed."""
        request = KeepAliveRequest(
            client_id=self._cluster.client_id, host=host, mountpoint=mountpoint
        )
        heard = since_boot()
        while True:
            try:
                await self.call(MetaRpc.KEEP_ALIVE, request)
                if since_boot() - heard > SILENCE:
                    await after_silence()
                heard = since_boot()
            except FsError as error:
                logger.warning("keep-alive failed: %s", error)
            await trio.sleep(KEEP_ALIVE_INTERVAL)


def _servers(routing: Routing) -> list[Node]:
    """Live metadata servers; all of them while the manager believes that none lives."""
    servers = sorted(routing.of_role(Role.META), key=lambda node: node.node_id)
    return [node for node in servers if node.alive] or servers
