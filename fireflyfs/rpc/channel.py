"""How a client calls the control plane; ``grpc_channel.py`` has the other carrier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fireflyfs.net.messages import Method
from fireflyfs.rpc.control import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fireflyfs.net.client import Peers
    from fireflyfs.rpc.methods import Rep, Req, Rpc


class Channel(Protocol):
    async def call(self, rpc: Rpc[Req, Rep], request: Req, *, timeout: float) -> Rep:
        """Raises FsError: what the service raised, UNREACHABLE, or TIMED_OUT after ``timeout``
        seconds; in the last two cases the request may have been executed."""
        ...


class FramedChannel:
    """In CONTROL frames. ``addresses`` may be a function, asked at every call."""

    def __init__(
        self, peers: Peers, addresses: Sequence[str] | Callable[[], Sequence[str]]
    ) -> None:
        self._peers = peers
        self._addresses = addresses

    async def call(self, rpc: Rpc[Req, Rep], request: Req, *, timeout: float) -> Rep:
        """See ``Channel``."""
        where = self._addresses() if callable(self._addresses) else self._addresses
        data = request.SerializeToString()
        reply = await self._peers.call(where, Method.CONTROL, [rpc.name], (data,), timeout=timeout)
        message: Rep = parse(rpc.reply, reply.payload, rpc.name)
        return message
