"""The control plane over gRPC, for any language, with health checking and reflection.

gRPC's own threads receive the calls; each enters trio to be answered by the ``ControlPlane``.
"""

from __future__ import annotations

import functools
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import trio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from fireflyfs.errors import Code, FsError
from fireflyfs.net.address import Address
from fireflyfs.net.listen import listen
from fireflyfs.rpc.auth import AUTH_KEY, TokenCheck
from fireflyfs.rpc.control import ControlPlane
from fireflyfs.rpc.futures import Gate, run_in_thread
from fireflyfs.rpc.status import abort

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Never

    from fireflyfs.net.credentials import Credentials

__all__ = ["ControlPlane", "serve_grpc"]

logger = logging.getLogger(__name__)

THREADS = 16
"""Calls answered at once; a long poll holds one."""
MAX_CALLS = 256
_OPTIONS = (("grpc.so_reuseport", 0),)


async def serve_grpc(
    control: ControlPlane,
    address: str,
    credentials: Credentials,
    *,
    allow_remote: bool = False,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> Never:
    """Serve on ``HOST:PORT`` until cancelled; ``started`` gets the port. Every call, of health and
    reflection too, must carry credentials (``rpc/auth.py``).

    Raises FsError(CONFIG): a bad or busy address, or one beyond this host without ``allow_remote``.
    """
    gate = Gate()
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="grpc")
    server = grpc.server(
        pool,
        interceptors=[_Authenticate(TokenCheck(credentials))],
        options=_OPTIONS,
        maximum_concurrent_rpcs=MAX_CALLS,
    )
    _add_services(server, control, gate)
    try:
        port = await _bind(server, address, allow_remote)
        server.start()
        task_status.started(port)
        await trio.sleep_forever()
    finally:
        gate.close()
        await run_in_thread(server.stop(grace=None).wait)
        await run_in_thread(functools.partial(pool.shutdown, wait=True))
    raise AssertionError("unreachable")


async def _bind(server: grpc.Server, address: str, allow_remote: bool) -> int:
    """TLS is to come in here, beside the plain port of loopback."""
    wanted = Address.parse(f"tcp://{address}")
    if not (wanted.is_local or allow_remote):
        raise FsError(Code.CONFIG, f"refusing to serve gRPC beyond this host on {address}")
    probe, found = await listen(wanted)  # says in one line what gRPC only logs
    probe.close()
    try:
        return server.add_insecure_port(str(found).removeprefix("tcp://"))
    except RuntimeError as error:
        raise FsError(Code.CONFIG, f"cannot serve gRPC on {address}: {error}") from None


def _add_services(server: grpc.Server, control: ControlPlane, gate: Gate) -> None:
    services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    for rpc in control.rpcs:
        _, service, method = rpc.name.split("/")
        answer = functools.partial(_answer, control, gate, rpc.name)
        # without serializers: the bytes are the control plane's own business
        services.setdefault(service, {})[method] = grpc.unary_unary_rpc_method_handler(answer)
    for service, methods in services.items():
        handler = grpc.method_handlers_generic_handler(service, methods)
        server.add_generic_rpc_handlers((handler,))
    checks = health.HealthServicer()
    for service in services:
        checks.set(service, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)


def _answer(
    control: ControlPlane, gate: Gate, name: str, data: bytes, context: grpc.ServicerContext
) -> bytes:
    """In one of gRPC's threads."""
    try:
        return gate.call(
            functools.partial(control.invoke, name, data),
            context.time_remaining(),
            context.add_callback,
        )
    except FsError as error:
        abort(context, error)


class _Authenticate(grpc.ServerInterceptor):
    def __init__(self, tokens: TokenCheck) -> None:
        self._tokens = tokens

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        method = handler_call_details.method
        metadata = dict(handler_call_details.invocation_metadata or ())
        token = metadata.get(AUTH_KEY, "")
        try:
            self._tokens.check(method, str(token), time.time())
        except FsError as error:
            logger.warning("refused a call", extra={"method": method, "reason": error})
            return _refusal(error, continuation(handler_call_details))
        return continuation(handler_call_details)


def _refusal(
    error: FsError, handler: grpc.RpcMethodHandler[Any, Any] | None
) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler of the same shape that only refuses."""

    def refuse(_: object, context: grpc.ServicerContext) -> Any:
        abort(context, error)

    if handler is not None and handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(refuse)
    return grpc.unary_unary_rpc_method_handler(refuse)
