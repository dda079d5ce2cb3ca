"""What every carrier of frames must do; a subclass gives the ``place`` fixture, an address text."""

from __future__ import annotations

import functools
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from fireflyfs import limits
from fireflyfs.errors import Code, FsError
from fireflyfs.net.address import Address
from fireflyfs.net.client import Peers
from fireflyfs.net.credentials import Credentials
from fireflyfs.net.messages import Method
from fireflyfs.net.server import MAX_REQUESTS, Request, Response, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fireflyfs.net.server import Handler

GOOD = Credentials("cluster", b"s" * 32)
FOREVER = 1e9


class Toy:
    """A handler that does what the body says: [what, argument]."""

    def __init__(self) -> None:
        self.gate = trio.Event()
        self.running = 0
        self.cancelled = 0
        self.released = 0

    def _release(self) -> None:
        self.released += 1

    async def handle(self, request: Request) -> Response:
        assert isinstance(request.body, list)
        what, argument = request.body
        self.running += 1
        try:
            match what:
                case "echo":
                    return Response(argument, (request.payload,), self._release)
                case "make":
                    data = random.Random(argument).randbytes(argument)
                    return Response(None, (data[: argument // 3], data[argument // 3 :]))
                case "wait":
                    await self.gate.wait()
                    return Response("waited", (request.payload,), self._release)
                case "refuse":
                    raise FsError(Code(argument), "because")
                case "huge":
                    return Response(None, (bytes(limits.MAX_FRAME_PAYLOAD + 1),), self._release)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        raise ValueError("a defect")


@asynccontextmanager
async def serving(place: str, handler: Handler) -> AsyncIterator[tuple[str, ...]]:
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(functools.partial(serve, [Address.parse(place)], GOOD, handler))
        yield tuple(str(address) for address in bound)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def calling(credentials: Credentials = GOOD) -> AsyncIterator[Peers]:
    async with trio.open_nursery() as nursery:
        peers = Peers(nursery, credentials)
        yield peers
        await peers.aclose()
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.001)


class CarrierSuite:
    @pytest.fixture
    async def toy(self) -> Toy:
        return Toy()

    @pytest.fixture
    async def at(self, place: str, toy: Toy) -> AsyncIterator[tuple[str, ...]]:
        async with serving(place, toy.handle) as addresses:
            yield addresses

    @pytest.fixture
    async def peers(self) -> AsyncIterator[Peers]:
        async with calling() as peers:
            yield peers

    async def test_ping_is_answered_by_the_server(self, peers: Peers, at: tuple[str, ...]) -> None:
        reply = await peers.call(at, Method.PING, [1, b"x"], (b"abc",), timeout=5)
        assert (reply.body, bytes(reply.payload), reply.received) == ([1, b"x"], b"abc", 3)

    @pytest.mark.parametrize("size", [0, 1, 16 * limits.KIB, limits.MIB + 3, 20 * limits.MIB])
    async def test_payload_both_ways(
        self, peers: Peers, at: tuple[str, ...], toy: Toy, size: int
    ) -> None:
        data = random.Random(size).randbytes(size)
        parts = (data[: size // 2], b"", memoryview(data)[size // 2 :])
        reply = await peers.call(at, Method.UPDATE, ["echo", "body"], parts, timeout=20)
        assert reply.body == "body"
        assert reply.payload == data
        assert toy.released == 1

    async def test_a_payload_fills_the_callers_buffers_in_order(
        self, peers: Peers, at: tuple[str, ...]
    ) -> None:
        buffers = [bytearray(n) for n in (7, 100_000, 0, 50, 400_000)]
        reply = await peers.call(
            at, Method.READ, ["make", 300_000], timeout=5, into=[memoryview(b) for b in buffers]
        )
        assert (reply.received, len(reply.payload)) == (300_000, 0)
        joined = b"".join(buffers)
        assert joined[:300_000] == random.Random(300_000).randbytes(300_000)
        assert not any(joined[300_000:])

    async def test_more_payload_than_room_is_an_error_of_that_call_only(
        self, peers: Peers, at: tuple[str, ...]
    ) -> None:
        buffer = bytearray(10)
        with pytest.raises(FsError) as caught:
            await peers.call(at, Method.READ, ["make", 11], timeout=5, into=[memoryview(buffer)])
        assert caught.value.code is Code.MALFORMED
        assert not any(buffer)
        await peers.call(at, Method.READ, ["make", 10], timeout=5, into=[memoryview(buffer)])
        assert any(buffer)

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (["refuse", Code.NO_SPACE], Code.NO_SPACE),
            (["defect", 0], Code.INTERNAL),
            (["huge", 0], Code.INTERNAL),
            ("not a list", Code.INTERNAL),
        ],
        ids=str,
    )
    async def test_a_failed_request_leaves_the_connection_alone(
        self, peers: Peers, at: tuple[str, ...], toy: Toy, body: object, code: Code
    ) -> None:
        with pytest.raises(FsError) as caught:
            await peers.call(at, Method.READ, body, timeout=5)
        assert caught.value.code is code
        assert toy.released == (body == ["huge", 0])
        await peers.call(at, Method.PING, None, timeout=5)

    async def test_a_request_over_the_limits_is_refused_here(
        self, peers: Peers, at: tuple[str, ...]
    ) -> None:
        with pytest.raises(FsError) as caught:
            await peers.call(
                at, Method.READ, None, (bytes(limits.MAX_FRAME_PAYLOAD + 1),), timeout=5
            )
        assert caught.value.code is Code.INVALID

    async def test_a_waiting_request_holds_nobody_up(
        self, peers: Peers, at: tuple[str, ...], toy: Toy
    ) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(
                    functools.partial(peers.call, at, Method.READ, ["wait", 0], timeout=FOREVER)
                )
            await until(lambda: toy.running == 20)
            for number in range(50):
                reply = await peers.call(at, Method.READ, ["echo", number], timeout=5)
                assert reply.body == number
            toy.gate.set()

    async def test_requests_in_flight_are_bounded_and_none_is_lost(
        self, peers: Peers, at: tuple[str, ...], toy: Toy
    ) -> None:
        answered = 0

        async def one() -> None:
            nonlocal answered
            await peers.call(at, Method.READ, ["wait", 0], timeout=FOREVER)
            answered += 1

        async with trio.open_nursery() as nursery:
            for _ in range(MAX_REQUESTS + 100):
                nursery.start_soon(one)
            await until(lambda: toy.running == MAX_REQUESTS)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert toy.running == MAX_REQUESTS
            toy.gate.set()
        assert answered == MAX_REQUESTS + 100

    async def test_bytes_in_flight_are_bounded(
        self, peers: Peers, at: tuple[str, ...], toy: Toy
    ) -> None:
        data = bytes(24 * limits.MIB)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(
                    functools.partial(
                        peers.call, at, Method.READ, ["wait", 0], (data,), timeout=FOREVER
                    )
                )
            await until(lambda: toy.running == 3)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert toy.running == 3
            toy.gate.set()
        assert toy.released == 5

    async def test_a_late_answer_is_a_timeout_and_harms_nobody(
        self, peers: Peers, at: tuple[str, ...], toy: Toy
    ) -> None:
        with pytest.raises(FsError, match=r"READ within 0\.05 s") as caught:
            await peers.call(at, Method.READ, ["wait", 0], timeout=0.05)
        assert caught.value.code is Code.TIMED_OUT
        await until(lambda: toy.cancelled == 1)
        await peers.call(at, Method.PING, None, timeout=5)

    async def test_cancelled_calls_get_their_buffers_back(
        self, peers: Peers, at: tuple[str, ...]
    ) -> None:
        """At whatever moment a call is given up, its buffers stay as they are from then on."""
        draw = random.Random(5)
        size = 3 * limits.MIB
        expected = random.Random(size).randbytes(size)
        given_up: list[tuple[bytearray, bytes]] = []
        for _ in range(60):
            buffer = bytearray(size)
            with trio.move_on_after(draw.random() * 0.02) as scope:
                await peers.call(
                    at, Method.READ, ["make", size], timeout=5, into=[memoryview(buffer)]
                )
                assert buffer == expected
            if scope.cancelled_caught:
                given_up.append((buffer, bytes(buffer)))
        buffer = bytearray(size)
        await peers.call(at, Method.READ, ["make", size], timeout=5, into=[memoryview(buffer)])
        assert buffer == expected
        assert all(held == then for held, then in given_up)

    async def test_a_cancelled_sender_may_reuse_its_buffer(
        self, peers: Peers, at: tuple[str, ...], toy: Toy
    ) -> None:
        draw = random.Random(6)
        for _ in range(40):
            data = bytearray(b"a" * (4 * limits.MIB))
            with trio.move_on_after(draw.random() * 0.01):
                await peers.call(at, Method.CONTROL, ["echo", 0], (data,), timeout=5)
            data[:] = b"b" * len(data)  # a torn payload would break the frame's checksum
        reply = await peers.call(at, Method.CONTROL, ["echo", 1], (b"ok",), timeout=5)
        assert bytes(reply.payload) == b"ok"

    async def test_a_lost_server_fails_its_calls_at_once_and_a_new_one_is_found(
        self, peers: Peers, place: str, toy: Toy
    ) -> None:
        failed: list[Code] = []

        async def one(at: tuple[str, ...]) -> None:
            with pytest.raises(FsError) as caught:
                await peers.call(at, Method.READ, ["wait", 0], timeout=FOREVER)
            failed.append(caught.value.code)

        async with trio.open_nursery() as nursery, serving(place, toy.handle) as at:
            for _ in range(10):
                nursery.start_soon(one, at)
            await until(lambda: toy.running == 10)
        assert failed == [Code.UNREACHABLE] * 10
        with pytest.raises(FsError) as caught:
            await peers.call(at, Method.PING, None, timeout=5)
        assert caught.value.code is Code.UNREACHABLE
        async with serving(at[0], toy.handle):
            await peers.call(at, Method.PING, None, timeout=5)

    async def test_a_lost_client_ends_nothing_that_was_begun(
        self, at: tuple[str, ...], toy: Toy
    ) -> None:
        async with calling() as peers, trio.open_nursery() as nursery:
            nursery.start_soon(
                functools.partial(peers.call, at, Method.READ, ["wait", 0], timeout=FOREVER)
            )
            await until(lambda: toy.running == 1)
            nursery.cancel_scope.cancel()
        toy.gate.set()
        await until(lambda: toy.released == 1)
        assert toy.cancelled == 0

    @pytest.mark.parametrize(
        ("credentials", "code"),
        [
            (Credentials("cluster", b"x" * 32), Code.UNAUTHENTICATED),
            (Credentials("other", b"s" * 32), Code.WRONG_CLUSTER),
        ],
        ids=["secret", "cluster"],
    )
    async def test_strangers_are_told_why(
        self, at: tuple[str, ...], toy: Toy, credentials: Credentials, code: Code
    ) -> None:
        async with calling(credentials) as peers:
            with pytest.raises(FsError) as caught:
                await peers.call(at, Method.PING, None, timeout=5)
        assert caught.value.code is code

    async def test_many_tasks_share_one_connection(self, peers: Peers, at: tuple[str, ...]) -> None:
        async def one(number: int) -> None:
            draw = random.Random(number)
            for _ in range(20):
                data = draw.randbytes(draw.choice([0, 10, 70_000]))
                reply = await peers.call(at, Method.UPDATE, ["echo", number], (data,), timeout=20)
                assert (reply.body, bytes(reply.payload)) == (number, data)

        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(one, number)
