"""Asking a gRPC server whether it serves: the standard health check, with credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc_health.v1 import health_pb2

from fireflyfs.errors import Code, FsError
from fireflyfs.rpc.grpc_channel import GrpcChannel
from fireflyfs.rpc.methods import Rpc

if TYPE_CHECKING:
    from fireflyfs.net.credentials import Credentials

_CHECK = Rpc(
    "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
)


async def check_health(address: str, credentials: Credentials, *, timeout: float) -> None:
    """Return if ``HOST:PORT`` serves. Raises FsError: UNREACHABLE, TIMED_OUT (``timeout`` in
    seconds), UNAUTHENTICATED, NOT_SERVING."""
    async with GrpcChannel(address, credentials) as channel:
        reply = await channel.call(_CHECK, health_pb2.HealthCheckRequest(), timeout=timeout)
    if reply.status != health_pb2.HealthCheckResponse.SERVING:
        raise FsError(Code.NOT_SERVING, f"{address}: gRPC is up but does not serve")
