"""The way to the other replicas: routing and connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fireflyfs.ids import ChainId
from fireflyfs.net.codec import to_wire
from fireflyfs.net.messages import FlushRequest, ForwardRequest
from fireflyfs.routing import Routing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from fireflyfs.net.client import Peers, Reply
    from fireflyfs.net.messages import Method
    from fireflyfs.routing import ChainTarget


class Neighbours:
    def __init__(self, peers: Peers, cluster_id: str) -> None:
        self._peers = peers
        self.routing = Routing(cluster_id)

    async def call(
        self,
        target: ChainTarget,
        method: Method,
        message: object,
        payload: Sequence[Buffer] = (),
        *,
        timeout: float,
    ) -> Reply:
        """Ask the node of ``target``. Raises FsError as ``Peers.call``, UNREACHABLE for a node that
        routing does not have."""
        node = self.routing.node(target.node_id)
        return await self._peers.call(
            node.addresses,
            method,
            to_wire(message),
            payload,
            timeout=timeout,
            lane=self._lane(target, message),
        )

    def _lane(self, target: ChainTarget, message: object) -> int:
        """Requests that go down the chain have one for each step of it. A step is answered after
        the next one, which other chains make between the same nodes: on one connection for all,
        three full connections could wait for each other in a circle."""
        if not isinstance(message, ForwardRequest | FlushRequest):
            return 0
        chain = self.routing.chains.get(ChainId(message.chain))
        targets = () if chain is None else chain.targets
        return next((i for i, t in enumerate(targets) if t.target_id == target.target_id), 0)
