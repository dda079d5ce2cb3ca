"""The control plane's client over gRPC."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import grpc

from fireflyfs.rpc.auth import AUTH_KEY, make_token
from fireflyfs.rpc.futures import run_in_thread, wait_for
from fireflyfs.rpc.status import to_error

if TYPE_CHECKING:
    from types import TracebackType

    from fireflyfs.net.credentials import Credentials
    from fireflyfs.rpc.methods import Rep, Req, Rpc


class GrpcChannel:
    """``address`` is ``HOST:PORT``; use it as an async context manager. See ``channel.Channel``."""

    def __init__(self, address: str, credentials: Credentials) -> None:
        self._address = address
        self._credentials = credentials
        self._channel = grpc.insecure_channel(address)  # TLS is to come in here
        self._stubs: dict[str, grpc.UnaryUnaryMultiCallable[Any, Any]] = {}

    async def __aenter__(self) -> GrpcChannel:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await run_in_thread(self._channel.close)

    async def call(self, rpc: Rpc[Req, Rep], request: Req, *, timeout: float) -> Rep:
        """See ``channel.Channel``."""
        token = make_token(self._credentials, rpc.name, time.time())
        call = self._stub(rpc).future(request, timeout=timeout, metadata=((AUTH_KEY, token),))
        try:
            reply: Rep = await wait_for(call)
        except grpc.RpcError as error:
            raise to_error(error, self._address) from None
        return reply

    def _stub(self, rpc: Rpc[Req, Rep]) -> grpc.UnaryUnaryMultiCallable[Req, Rep]:
        stub = self._stubs.get(rpc.name)
        if stub is None:
            stub = self._stubs[rpc.name] = self._channel.unary_unary(
                rpc.name,
                request_serializer=rpc.request.SerializeToString,
                response_deserializer=rpc.reply.FromString,
            )
        return stub
