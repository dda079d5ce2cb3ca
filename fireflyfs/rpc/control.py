"""One implementation of the control plane's services, behind both carriers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from google.protobuf.message import DecodeError, Message

from fireflyfs.errors import Code, FsError, refusal_in
from fireflyfs.net.messages import Method
from fireflyfs.net.server import Request, Response
from fireflyfs.rpc.methods import Rpc

logger = logging.getLogger(__name__)

Handlers = Mapping[Rpc[Any, Any], Callable[[Any], Awaitable[Any]]]
"""For each call, ``async (request) -> reply``; it raises FsError to refuse."""


class ControlPlane:
    """``handle`` is a frame server's handler; ``rpc/server.py`` serves the same over gRPC."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = {rpc.name: (rpc, handler) for rpc, handler in handlers.items()}

    @property
    def rpcs(self) -> list[Rpc[Any, Any]]:
        return [rpc for rpc, _ in self._handlers.values()]

    async def invoke(self, name: str, data: bytes | memoryview) -> bytes:
        """Raises FsError: UNKNOWN_METHOD, MALFORMED, INTERNAL (a defect, which is logged), or what
        the handler raised."""
        try:
            rpc, handler = self._handlers[name]
        except KeyError:
            raise FsError(Code.UNKNOWN_METHOD, f"there is no {name!r} here") from None
        request = parse(rpc.request, data, name)
        try:
            reply: Message = await handler(request)
            return reply.SerializeToString()
        except Exception as error:
            if (refusal := refusal_in(error)) is not None:
                raise refusal from refusal.__cause__
            logger.exception("a handler failed", extra={"method": name})
            raise FsError(Code.INTERNAL, f"{name} failed: {type(error).__name__}") from None

    async def handle(self, request: Request) -> Response:
        """A CONTROL frame: the body is [full method name], the payload the protobuf message."""
        if request.method is not Method.CONTROL:
            raise FsError(Code.UNKNOWN_METHOD, f"{request.method.name} is not served here")
        body = request.body
        if not (isinstance(body, list) and len(body) == 1 and isinstance(body[0], str)):
            raise FsError(Code.MALFORMED, "a control request's body is [method name]")
        reply = await self.invoke(body[0], request.payload)
        return Response(None, (reply,))


def parse(cls: type[Any], data: bytes | memoryview, name: str) -> Any:
    """Raises FsError(MALFORMED)."""
    try:
        return cls.FromString(bytes(data))
    except DecodeError as error:
        raise FsError(Code.MALFORMED, f"{name}: not a valid {cls.__name__}") from error
