"""Hostile bytes at live ports: the connection is closed with one logged reason, nothing else."""

from __future__ import annotations

import functools
import logging
import struct
from typing import TYPE_CHECKING

import grpc
import pytest
import trio

from fireflyfs.checksum import crc32c
from fireflyfs.net import link, listen, server
from fireflyfs.net.address import Address
from fireflyfs.net.frame import REPLY, REQUEST, encode_frame
from fireflyfs.net.handshake import ClientHandshake
from fireflyfs.net.messages import Method
from fireflyfs.rpc.control import ControlPlane
from fireflyfs.rpc.grpc_channel import GrpcChannel
from fireflyfs.rpc.meta_pb2 import InodeReply, LookupRequest
from fireflyfs.rpc.methods import MetaRpc
from fireflyfs.rpc.server import serve_grpc
from tests.conformance.carrier_suite import GOOD, Toy, calling, serving

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator
    from pathlib import Path

HELLO = ClientHandshake(GOOD).hello


def forged_header(body: int, payload: int) -> bytes:
    head = struct.pack(
        "<4sBBHHHIIIQIII", b"FFLY", 1, REQUEST, 2, 0, 0, body, payload, 0, 1, 0, 0, 0
    )
    return head + struct.pack("<I", crc32c(head))


FRAME = b"".join(encode_frame(REQUEST, Method.CONTROL, 1, ["echo", 0], [b"payload"]))
STRANGERS = {
    "nothing": b"",
    "zeros": bytes(100_000),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a frame without handshake": FRAME,
    "a length of 2^63": b"FFHS\x01\x01" + (1 << 63).to_bytes(8, "little"),
    "a cut hello": HELLO[:20],
    "a hello of another cluster": HELLO[:-1] + b"?",
    "a wrong proof": HELLO + b"FFHS\x01\x03\x20\x00" + bytes(32),
    "a result": b"FFHS\x01\x04\x02\x00\x00\x00",
}
TRAITORS = {
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "a length of 2^32": forged_header(0xFFFFFFFF, 0xFFFFFFFF),
    "a cut header": FRAME[:20],
    "a cut body": FRAME[:50],
    "a cut payload": FRAME[:-1],
    "a changed payload": FRAME[:-1] + b"?",
    "a body that is not MessagePack": b"".join(
        [
            (head := struct.pack(
                "<4sBBHHHIIIQIII",
                b"FFLY", 1, REQUEST, 2, 0, 0, 1, 0, crc32c(b"\xc1"), 1, 0, 0, 0,
            )),
            struct.pack("<I", crc32c(head)),
            b"\xc1",
        ]
    ),
    "a reply": b"".join(encode_frame(REPLY, Method.CONTROL, 1, None)),
}  # fmt: skip


@pytest.fixture(params=["tcp", "unix"])
async def at(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    place = "tcp://127.0.0.1:0" if request.param == "tcp" else f"unix://{tmp_path}/s"
    async with serving(place, Toy().handle) as (address,):
        yield address


async def talk(sock: socket.socket, data: bytes) -> bytes:
    """Send, end our side, and return all that comes until the server closes."""
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    received = b""
    with trio.fail_after(5):
        try:
            await stream.send_all(data)
            await stream.send_eof()
            async for part in stream:
                received += part
        except trio.BrokenResourceError:
            pass  # closed with our bytes unread
    return received


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Of the refusals logged; anything worse than a refusal fails the test."""
    assert all(record.levelno <= logging.WARNING for record in caplog.records)
    return [str(vars(r)["reason"]) for r in caplog.records if r.levelno == logging.WARNING]


async def still_serves(at: str) -> None:
    async with calling() as peers:
        await peers.call((at,), Method.PING, None, timeout=5)


@pytest.mark.parametrize("data", STRANGERS.values(), ids=STRANGERS.keys())
async def test_a_stranger_gets_nothing(
    at: str, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with await listen.connect(Address.parse(at)) as sock:
        answer = await talk(sock, data)
    assert len(answer) <= 8 + 68 + 8 + 2
    assert len(reasons(caplog)) == 1
    await still_serves(at)


@pytest.mark.parametrize("data", TRAITORS.values(), ids=TRAITORS.keys())
async def test_garbage_after_the_handshake_ends_the_connection(
    at: str, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with await listen.connect(Address.parse(at)) as sock:
        await link.greet(sock, GOOD)
        assert await talk(sock, data) == b""
    assert len(reasons(caplog)) == 1
    await still_serves(at)


async def test_an_unknown_method_is_answered(at: str) -> None:
    with await listen.connect(Address.parse(at)) as sock:
        await link.greet(sock, GOOD)
        request = b"".join(encode_frame(REQUEST, 999, 1, None))
        assert (406).to_bytes(2, "little") in (await talk(sock, request))[:12]


async def test_a_silent_stranger_is_sent_away(
    at: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 0.05)
    with await listen.connect(Address.parse(at)) as sock, trio.fail_after(5):
        await trio.lowlevel.wait_readable(sock)
        assert sock.recv(1) == b""
    assert reasons(caplog) == ["the handshake took too long"]


async def test_a_frame_that_stops_half_way_ends_the_connection(
    at: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "FRAME_SECONDS", 0.05)
    with await listen.connect(Address.parse(at)) as sock, trio.fail_after(5):
        await link.greet(sock, GOOD)
        sock.send(FRAME[:-1])
        await trio.lowlevel.wait_readable(sock)
        assert sock.recv(1) == b""
    assert len(reasons(caplog)) == 1


async def test_a_crowd_of_strangers_does_not_shut_friends_out(
    at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 0.2)
    crowd = [await listen.connect(Address.parse(at)) for _ in range(server.MAX_STRANGERS + 50)]
    try:
        await still_serves(at)
    finally:
        for sock in crowd:
            sock.close()


async def test_garbage_at_the_grpc_port_changes_nothing() -> None:
    async def lookup(request: LookupRequest) -> InodeReply:
        return InodeReply()

    control = ControlPlane({MetaRpc.LOOKUP: lookup})
    async with trio.open_nursery() as nursery:
        port = await nursery.start(functools.partial(serve_grpc, control, "127.0.0.1:0", GOOD))
        for data in (*STRANGERS.values(), *TRAITORS.values()):
            with await listen.connect(Address.parse(f"tcp://127.0.0.1:{port}")) as sock:
                assert b"FFHS" not in await talk(sock, data)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as bare:
            stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = bare.unary_unary(MetaRpc.LOOKUP.name)
            with pytest.raises(grpc.RpcError) as caught:
                await trio.to_thread.run_sync(functools.partial(stub, b"", timeout=5))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        async with GrpcChannel(f"127.0.0.1:{port}", GOOD) as channel:
            await channel.call(MetaRpc.LOOKUP, LookupRequest(), timeout=5)
        nursery.cancel_scope.cancel()
