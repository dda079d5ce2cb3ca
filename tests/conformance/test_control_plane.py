"""The control plane's services behave the same over both carriers."""

from __future__ import annotations

import functools
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import trio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from fireflyfs.errors import Code, FsError
from fireflyfs.net.credentials import Credentials
from fireflyfs.net.messages import Method
from fireflyfs.rpc.auth import AUTH_KEY, make_token
from fireflyfs.rpc.channel import FramedChannel
from fireflyfs.rpc.control import ControlPlane
from fireflyfs.rpc.grpc_channel import GrpcChannel
from fireflyfs.rpc.health import check_health
from fireflyfs.rpc.meta_pb2 import Inode, InodeReply, LookupRequest, UnlinkRequest
from fireflyfs.rpc.methods import MetaRpc
from fireflyfs.rpc.server import serve_grpc
from tests.conformance.carrier_suite import GOOD, calling, serving, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fireflyfs.rpc.channel import Channel


class Namespace:
    """A servicer of one call: the name decides what happens."""

    def __init__(self) -> None:
        self.waiting = 0
        self.cancelled = 0
        self.control = ControlPlane({MetaRpc.LOOKUP: self.lookup})

    async def lookup(self, request: LookupRequest) -> InodeReply:
        if request.name == b"wait":
            await self._wait()
        if request.name == b"nursery":
            async with trio.open_nursery():
                raise FsError(Code.NO_SPACE, "inside")
        if request.name == b"defect":
            raise ValueError("secret details")
        if request.name.isdigit():
            raise FsError(Code(int(request.name)), "because ü")
        return InodeReply(inode=Inode(id=request.parent, target=request.name))

    async def _wait(self) -> None:
        self.waiting += 1
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1


@asynccontextmanager
async def serving_grpc(control: ControlPlane) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(functools.partial(serve_grpc, control, "127.0.0.1:0", GOOD))
        yield f"127.0.0.1:{port}"
        nursery.cancel_scope.cancel()


@pytest.fixture
async def namespace() -> Namespace:
    return Namespace()


@pytest.fixture(params=["frames", "grpc"])
async def channel(
    request: pytest.FixtureRequest, namespace: Namespace, tmp_path: Path
) -> AsyncIterator[Channel]:
    if request.param == "frames":
        place = f"unix://{tmp_path}/s"
        async with serving(place, namespace.control.handle) as at, calling() as peers:
            yield FramedChannel(peers, lambda: at)
    else:
        async with serving_grpc(namespace.control) as address, GrpcChannel(address, GOOD) as made:
            yield made


async def failure(channel: Channel, name: bytes, timeout: float = 5) -> FsError:
    with pytest.raises(FsError) as caught:
        await channel.call(MetaRpc.LOOKUP, LookupRequest(name=name), timeout=timeout)
    return caught.value


async def test_a_call_is_answered(channel: Channel) -> None:
    request = LookupRequest(parent=2**63, name=b"\xff\x00" * 1000)
    reply = await channel.call(MetaRpc.LOOKUP, request, timeout=5)
    assert (reply.inode.id, reply.inode.target) == (2**63, b"\xff\x00" * 1000)


@pytest.mark.parametrize("code", [c for c in Code if c is not Code.OK], ids=lambda c: c.name)
async def test_every_error_arrives_as_itself(channel: Channel, code: Code) -> None:
    error = await failure(channel, str(int(code)).encode())
    assert (error.code, error.message) == (code, "because ü")


async def test_a_defect_is_internal_and_keeps_its_details(channel: Channel) -> None:
    error = await failure(channel, b"defect")
    assert error.code is Code.INTERNAL
    assert "secret" not in str(error)


async def test_a_refusal_comes_out_of_a_nursery(channel: Channel) -> None:
    assert (await failure(channel, b"nursery")).code is Code.NO_SPACE


async def test_the_deadline_ends_the_call_on_both_sides(
    channel: Channel, namespace: Namespace
) -> None:
    assert (await failure(channel, b"wait", timeout=0.1)).code is Code.TIMED_OUT
    await until(lambda: namespace.cancelled == 1)


async def test_a_call_nobody_implements(channel: Channel) -> None:
    with pytest.raises(FsError) as caught:
        await channel.call(MetaRpc.UNLINK, UnlinkRequest(), timeout=5)
    assert caught.value.code is Code.UNKNOWN_METHOD


async def test_calls_run_side_by_side(channel: Channel, namespace: Namespace) -> None:
    async def wait() -> None:
        await channel.call(MetaRpc.LOOKUP, LookupRequest(name=b"wait"), timeout=60)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(wait)
        await until(lambda: namespace.waiting == 5)
        await channel.call(MetaRpc.LOOKUP, LookupRequest(), timeout=5)
        nursery.cancel_scope.cancel()


async def test_bytes_that_are_no_message_are_malformed(
    namespace: Namespace, tmp_path: Path
) -> None:
    place = f"unix://{tmp_path}/s"
    async with serving(place, namespace.control.handle) as at, calling() as peers:
        for method, body, payload, code in (
            (Method.CONTROL, [MetaRpc.LOOKUP.name], b"\xff\xff", Code.MALFORMED),
            (Method.CONTROL, None, b"", Code.MALFORMED),
            (Method.CONTROL, [1], b"", Code.MALFORMED),
            (Method.CONTROL, ["/no/such"], b"", Code.UNKNOWN_METHOD),
            (Method.READ, None, b"", Code.UNKNOWN_METHOD),
        ):
            with pytest.raises(FsError) as caught:
                await peers.call(at, method, body, (payload,), timeout=5)
            assert caught.value.code is code
    async with serving_grpc(namespace.control) as address:
        with pytest.raises(grpc.RpcError) as refused:
            await bare_call(address, MetaRpc.LOOKUP.name, b"\xff\xff")
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def bare_call(address: str, name: str, data: bytes) -> bytes:
    metadata = ((AUTH_KEY, make_token(GOOD, name, time.time())),)
    with grpc.insecure_channel(address) as bare:
        stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = bare.unary_unary(name)
        call = functools.partial(stub, data, timeout=5, metadata=metadata)
        return await trio.to_thread.run_sync(call)


async def test_cancelling_a_grpc_call_cancels_its_handler(namespace: Namespace) -> None:
    async with serving_grpc(namespace.control) as address, GrpcChannel(address, GOOD) as channel:
        async with trio.open_nursery() as nursery:
            request = LookupRequest(name=b"wait")
            call = functools.partial(channel.call, MetaRpc.LOOKUP, request, timeout=60)
            nursery.start_soon(call)
            await until(lambda: namespace.waiting == 1)
            nursery.cancel_scope.cancel()
        await until(lambda: namespace.cancelled == 1)


async def test_a_grpc_server_stops_in_the_middle_of_calls(namespace: Namespace) -> None:
    before = threading.active_count()
    outcomes: list[Code] = []

    async def one(channel: Channel) -> None:
        outcomes.append((await failure(channel, b"wait", timeout=60)).code)

    async with trio.open_nursery() as nursery, serving_grpc(namespace.control) as address:
        channel = GrpcChannel(address, GOOD)
        for _ in range(3):
            nursery.start_soon(one, channel)
        await until(lambda: namespace.waiting == 3)
    assert len(outcomes) == 3
    assert set(outcomes) <= {Code.CANCELLED, Code.UNREACHABLE}
    async with channel:
        assert (await failure(channel, b"x", timeout=5)).code is Code.UNREACHABLE
    assert not [t for t in threading.enumerate() if t.name.startswith("grpc")]
    assert threading.active_count() <= before + 3  # trio keeps idle threads of its own


async def test_health_and_reflection_are_there_for_those_who_may(namespace: Namespace) -> None:
    async with serving_grpc(namespace.control) as address:
        await check_health(address, GOOD, timeout=5)
        stranger = Credentials("cluster", b"x" * 32)
        with pytest.raises(FsError) as caught:
            await check_health(address, stranger, timeout=5)
        assert caught.value.code is Code.UNAUTHENTICATED
        request = health_pb2.HealthCheckRequest(service="fireflyfs.rpc.Meta")
        data = await bare_call(address, "/grpc.health.v1.Health/Check", request.SerializeToString())
        reply = health_pb2.HealthCheckResponse.FromString(data)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        assert "fireflyfs.rpc.Meta" in await trio.to_thread.run_sync(reflected, address, True)
        with pytest.raises(grpc.RpcError) as refused:
            await trio.to_thread.run_sync(reflected, address, False)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def reflected(address: str, is_friend: bool) -> list[str]:
    """The services that the server says it has."""
    name = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    token = make_token(GOOD, name, time.time()) if is_friend else "v1:0:0:0"
    with grpc.insecure_channel(address) as bare:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(bare)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        replies = stub.ServerReflectionInfo(iter([request]), metadata=((AUTH_KEY, token),))
        return [s.name for r in replies for s in r.list_services_response.service]


async def test_a_busy_or_remote_grpc_address_is_refused_in_a_line(namespace: Namespace) -> None:
    async with serving_grpc(namespace.control) as address:
        for bad in (address, "0.0.0.0:0", "nonsense", "127.0.0.1:99999"):
            with pytest.raises(FsError) as caught:
                await serve_grpc(namespace.control, bad, GOOD)
            assert caught.value.code in (Code.CONFIG, Code.INVALID)
            assert "\n" not in str(caught.value)
