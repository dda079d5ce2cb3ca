"""Calling peers: one connection for each, shared by all tasks of the process."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import outcome
import trio

from fireflyfs.errors import Code, FsError, code_of
from fireflyfs.net.address import Address, preferred
from fireflyfs.net.frame import MAX_TIMEOUT_MS, REPLY, REQUEST, Frame, Header, encode_frame
from fireflyfs.net.link import HANDSHAKE_SECONDS, Link, Outgoing, greet, tune
from fireflyfs.net.listen import connect

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from fireflyfs.net.credentials import Credentials
    from fireflyfs.net.messages import Method

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 2.0

_Key = tuple[int, tuple[str, ...]]
"""Lane and addresses."""


@dataclass(slots=True)
class Reply:
    body: object
    payload: memoryview
    """Empty when the payload went into the caller's buffers."""
    received: int
    """Bytes of payload, wherever they went."""


class Peers:
    """The process's connections, made when first needed and again after they broke.

    ``nursery`` owns their tasks; leave it cancelled or call ``aclose`` first.
    """

    def __init__(self, nursery: trio.Nursery, credentials: Credentials) -> None:
        self._nursery = nursery
        self._credentials = credentials
        self._by_peer: dict[_Key, _Connection] = {}
        self._attempts: dict[_Key, _Attempt] = {}
        self._is_closed = False

    async def call(
        self,
        addresses: Sequence[str],
        method: Method,
        body: object,
        payload: Sequence[Buffer] = (),
        *,
        timeout: float,
        into: Sequence[memoryview] | None = None,
        lane: int = 0,
    ) -> Reply:
        """One request to the peer that listens on all of ``addresses``, within ``timeout`` seconds.

        Each ``lane`` has a connection of its own. A server does not read from a connection with too
        much in work: a request that others may wait for must not stand behind those that wait.

        ``into``: writable byte buffers that the reply's payload fills in order, straight from the
        socket. They, and ``payload``, are not touched any more once this returns or raises.

        Raises FsError: the peer's code; UNREACHABLE (no connection, or it broke: the request may
        have been executed); TIMED_OUT (the same); MALFORMED (more payload than ``into`` holds).
        """
        key = lane, tuple(addresses)
        if self._is_closed:
            raise FsError(Code.CANCELLED, "the connections of this process are closed")
        with trio.move_on_after(timeout) as scope:
            connection = self._by_peer.get(key)
            if connection is None or connection.is_lost:
                connection = await self._connect(key)
            milliseconds = max(1, min(int(timeout * 1000), MAX_TIMEOUT_MS))
            return await connection.call(method, body, payload, milliseconds, into)
        assert scope.cancelled_caught
        raise FsError(
            Code.TIMED_OUT, f"{_names(key)}: no answer to {method.name} within {timeout:g} s"
        )

    async def aclose(self) -> None:
        """Close every connection; calls in progress fail with UNREACHABLE."""
        self._is_closed = True
        for connection in self._by_peer.values():
            connection.close()
        self._by_peer.clear()
        await trio.lowlevel.checkpoint()

    async def _connect(self, key: _Key) -> _Connection:
        """Callers of the same peer share one attempt, and its failure; none of them owns it."""
        attempt = self._attempts.get(key)
        if attempt is None:
            attempt = self._attempts[key] = _Attempt()
            self._nursery.start_soon(self._try, key, attempt)
        await attempt.done.wait()
        if attempt.connection is not None:
            return attempt.connection
        raise FsError(attempt.error.code, attempt.error.message)

    async def _try(self, key: _Key, attempt: _Attempt) -> None:
        try:
            connection = await self._connect_any(key)
            if self._is_closed:
                connection.close()
                return
            attempt.connection = self._by_peer[key] = connection
            self._nursery.start_soon(connection.run)
        except FsError as error:
            attempt.error = error
        finally:
            del self._attempts[key]
            attempt.done.set()

    async def _connect_any(self, key: _Key) -> _Connection:
        problem: FsError | None = None
        for address in preferred(key[1]):
            try:
                return await self._connect_one(address)
            except FsError as error:
                logger.debug("cannot connect", extra={"peer": address, "reason": error})
                problem = problem or error
        raise problem or FsError(Code.UNREACHABLE, f"nobody listens on {_names(key)}")

    async def _connect_one(self, address: Address) -> _Connection:
        sock = None
        try:
            with trio.fail_after(CONNECT_SECONDS):
                sock = await connect(address)
                tune(sock)
            with trio.fail_after(HANDSHAKE_SECONDS):
                await greet(sock, self._credentials)
            return _Connection(sock, str(address))
        except trio.TooSlowError:
            problem = FsError(Code.UNREACHABLE, f"cannot connect to {address}: no answer")
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            problem = FsError(Code.UNREACHABLE, f"cannot connect to {address}: {reason}")
        except FsError as error:
            problem = FsError(error.code, f"cannot connect to {address}: {error}")
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        if sock is not None:
            sock.close()
        raise problem


class _Attempt:
    """To connect, in progress."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.connection: _Connection | None = None
        self.error = FsError(Code.CANCELLED, "the connections of this process are closed")


class _Call:
    """A request whose caller waits."""

    __slots__ = ("into", "outgoing", "overflow", "task")

    def __init__(self, into: list[memoryview] | None) -> None:
        self.task = trio.lowlevel.current_task()
        self.into = into
        self.outgoing: Outgoing | None = None
        self.overflow = 0
        """Length of a payload that ``into`` cannot hold."""


class _Connection:
    """Many calls over one link, told apart by their ids; ``run`` receives the replies."""

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self._link = Link(sock, peer, self._place)
        self._calls: dict[int, _Call] = {}
        self._last_id = 0
        self.is_lost = False

    async def run(self) -> None:
        reason: FsError | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._link.pump)
                try:
                    await self._receive()
                except FsError as error:
                    reason = error
                self._link.close()
        finally:
            self.close(reason)

    def close(self, reason: FsError | None = None) -> None:
        """Idempotent; every call in progress fails at once."""
        self.is_lost = True
        self._link.close()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            error = FsError(Code.UNREACHABLE, f"{self._link.peer}: the connection was lost")
            error.__cause__ = reason
            trio.lowlevel.reschedule(call.task, outcome.Error(error))

    async def call(
        self,
        method: Method,
        body: object,
        payload: Sequence[Buffer],
        timeout_ms: int,
        into: Sequence[memoryview] | None,
    ) -> Reply:
        request_id = self._last_id = self._last_id + 1
        views = encode_frame(REQUEST, method, request_id, body, payload, timeout_ms=timeout_ms)
        call = _Call(None if into is None else [memoryview(b).cast("B") for b in into])
        self._calls[request_id] = call
        call.outgoing = self._link.send(views)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._abandon(request_id)
            return trio.lowlevel.Abort.SUCCEEDED

        frame: Frame = await trio.lowlevel.wait_task_rescheduled(abort)
        header = frame.header
        if header.code:
            raise FsError(code_of(header.code), _text(frame.body))
        if call.overflow:
            raise FsError(
                Code.MALFORMED, f"{self._link.peer}: {call.overflow} bytes, more than asked for"
            )
        return Reply(frame.body, frame.payload, header.payload_length)

    def _abandon(self, request_id: int) -> None:
        """Its reply will find nobody, and its buffers are the caller's again."""
        call = self._calls.pop(request_id)
        self._link.reader.divert(request_id)
        if call.outgoing is not None:
            self._link.withdraw(call.outgoing)

    def _place(self, header: Header) -> list[memoryview] | None:
        call = self._calls.get(header.request_id)
        if call is None or call.into is None or header.code:
            return None
        if sum(view.nbytes for view in call.into) < header.payload_length:
            call.overflow = header.payload_length
            return None
        return call.into

    async def _receive(self) -> None:
        while frame := await self._link.receive():
            if frame.header.kind != REPLY:
                raise FsError(Code.MALFORMED, f"{self._link.peer}: a request instead of a reply")
            call = self._calls.pop(frame.header.request_id, None)
            if call is None:
                continue
            if call.outgoing is not None and call.outgoing.views:
                self._link.withdraw(call.outgoing)
            trio.lowlevel.reschedule(call.task, outcome.Value(frame))


def _text(body: object) -> str:
    return body if isinstance(body, str) else "the peer gave no reason"


def _names(key: _Key) -> str:
    return " or ".join(key[1]) or "no address"
