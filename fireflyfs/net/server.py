"""Serving frames: listeners, the handshake, and each connection's requests side by side.

A connection has a few workers that take turns to receive: the one that has a request handles it
itself, and another takes over receiving. So a request costs no new task and no queue, and one that
waits holds nobody up. A connection with too much in flight is not read from until it drains.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import math
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from fireflyfs import limits
from fireflyfs.errors import Code, FsError, refusal_in
from fireflyfs.net.frame import REPLY, REQUEST, Frame, encode_frame
from fireflyfs.net.link import HANDSHAKE_SECONDS, Link, tune, welcome
from fireflyfs.net.listen import listen, unlink_socket
from fireflyfs.net.messages import Method

if TYPE_CHECKING:
    from typing import Never

    from typing_extensions import Buffer

    from fireflyfs.net.address import Address
    from fireflyfs.net.credentials import Credentials

logger = logging.getLogger(__name__)

MAX_REQUESTS = 256
"""Of one connection, received and not yet answered."""
MAX_REQUEST_BYTES = 64 * limits.MIB
"""Payload of those requests and of their replies on the way; one more may go over it."""
MAX_STRANGERS = 128
"""Connections in the handshake at once."""
_SPARE_WORKERS = 4

_UCRED = struct.Struct("3i")
"""struct ucred of unix(7): pid, uid, gid."""
_METHODS = {int(method): method for method in Method}


@dataclass(slots=True)
class Request:
    method: Method
    body: object
    """As decoded: ``codec.from_wire`` checks and types it."""
    payload: memoryview
    peer: str
    """For messages."""
    deadline: float
    """``trio.current_time()`` at which the handler is cancelled: nobody waits for the answer."""


@dataclass(slots=True)
class Response:
    body: object = None
    """A message dataclass, or what MessagePack can carry."""
    payload: Sequence[Buffer] = ()
    release: Callable[[], None] | None = None
    """Called once the payload is sent, or will never be."""


Handler = Callable[[Request], Awaitable[Response]]
"""FsError (or a nursery's group of them) becomes an error reply; any other exception is logged and
becomes INTERNAL."""


async def serve(
    addresses: Sequence[Address],
    credentials: Credentials,
    handler: Handler,
    *,
    allow_remote: bool = False,
    task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED,
) -> Never:
    """Listen on all addresses and serve until cancelled. PING is answered here.

    ``started`` gets the addresses with the ports that were taken (port 0 takes any). Raises
    FsError(CONFIG) if one cannot be listened on, or is not of this host without ``allow_remote``.
    """
    for address in addresses:
        if not (address.is_local or allow_remote):
            raise FsError(Code.CONFIG, f"refusing to listen beyond this host on {address}")
    strangers = trio.CapacityLimiter(MAX_STRANGERS)
    with contextlib.ExitStack() as stack:
        bound = [await _listen(address, stack) for address in addresses]
        async with trio.open_nursery() as nursery:
            for sock, actual in bound:
                meet = functools.partial(_meet, credentials, handler, strangers, str(actual))
                nursery.start_soon(_accept_forever, sock, nursery, strangers, meet)
            task_status.started([actual for _, actual in bound])
            await trio.sleep_forever()
    raise AssertionError("unreachable")


async def _listen(address: Address, stack: contextlib.ExitStack) -> tuple[socket.socket, Address]:
    sock, actual = await listen(address)
    if actual.scheme == "unix":
        stack.callback(unlink_socket, actual.path)
    stack.callback(sock.close)
    return sock, actual


async def _accept_forever(
    listener: socket.socket,
    nursery: trio.Nursery,
    strangers: trio.CapacityLimiter,
    meet: Callable[[socket.socket], Awaitable[None]],
) -> None:
    while True:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            await trio.lowlevel.wait_readable(listener)
            continue
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                continue  # the connection was gone before it was accepted
            logger.error("cannot accept a connection: %s", error)
            await trio.sleep(0.5)
            continue
        try:
            await strangers.acquire_on_behalf_of(sock)
        except BaseException:
            sock.close()
            raise
        nursery.start_soon(meet, sock)


async def _meet(
    credentials: Credentials,
    handler: Handler,
    strangers: trio.CapacityLimiter,
    where: str,
    sock: socket.socket,
) -> None:
    """One accepted connection, from the handshake to the end; owns the socket."""
    with sock:
        peer = _describe(sock, where)
        try:
            tune(sock)
            with trio.fail_after(HANDSHAKE_SECONDS):
                await welcome(sock, credentials)
        except (FsError, OSError, trio.TooSlowError) as error:
            reason = (
                "the handshake took too long" if isinstance(error, trio.TooSlowError) else error
            )
            logger.warning("refused a connection", extra={"peer": peer, "reason": reason})
            return
        finally:
            strangers.release_on_behalf_of(sock)
        await _Connection(Link(sock, peer), handler).run()


def _describe(sock: socket.socket, where: str) -> str:
    """The peer, for messages: host and port, or the process at the other end of a Unix socket."""
    if sock.family == socket.AF_UNIX:
        pid, uid, _ = _UCRED.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        )
        return f"{where} from pid {pid} uid {uid}"
    try:
        host, port, *_ = sock.getpeername()
    except OSError:
        return where
    return f"{host}:{port}"


class _Connection:
    def __init__(self, link: Link, handler: Handler) -> None:
        self._link = link
        self._handler = handler
        self._idle = trio.lowlevel.ParkingLot()
        self._is_receiving = False
        self._requests = 0
        self._bytes = 0

    async def run(self) -> None:
        """Until the peer goes; requests in progress are finished all the same: a replicated write
        is not abandoned because its client died."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._link.pump)
                self._nursery.start_soon(self._work)
        finally:
            self._link.close()

    async def _work(self) -> None:
        """Handle requests, one after the other, until there is nothing to do."""
        while frame := await self._next():
            with trio.CancelScope(deadline=_deadline(frame)) as scope:
                await self._handle(frame, scope.deadline)
            if scope.cancelled_caught:
                self._reply_error(frame, FsError(Code.TIMED_OUT, "the request took too long"))

    async def _next(self) -> Frame | None:
        """Wait for the turn to receive, and for a request; None when there are workers enough or
        the connection is over."""
        while self._is_receiving or self._is_full():
            if self._link.is_closed or len(self._idle) >= _SPARE_WORKERS:
                return None
            await self._idle.park()
        if self._link.is_closed:
            return None
        self._is_receiving = True
        try:
            frame = await self._link.receive()
            if frame is not None and frame.header.kind != REQUEST:
                raise FsError(Code.MALFORMED, "a reply where a request is expected")
        except FsError as error:
            if error.code is not Code.UNREACHABLE:
                logger.warning(
                    "closed a connection", extra={"peer": self._link.peer, "reason": error}
                )
            frame = None
        finally:
            self._is_receiving = False
        if frame is None:
            self._link.close()
            self._idle.unpark_all()
            return None
        self._requests += 1
        self._bytes += frame.header.payload_length
        self._pass_turn()
        return frame

    def _is_full(self) -> bool:
        return self._requests >= MAX_REQUESTS or self._bytes >= MAX_REQUEST_BYTES

    def _pass_turn(self) -> None:
        """Somebody else receives while this worker handles what it has."""
        if self._idle:
            self._idle.unpark()
        elif not self._is_full():
            self._nursery.start_soon(self._work)

    def _finished(self, size: int) -> None:
        was_full = self._is_full()
        self._requests -= 1
        self._bytes -= size
        if was_full and not self._is_receiving and not self._link.is_closed:
            self._pass_turn()

    async def _handle(self, frame: Frame, deadline: float) -> None:
        header = frame.header
        method = _METHODS.get(header.method)
        if method is None:
            error = FsError(Code.UNKNOWN_METHOD, f"there is no method {header.method}")
            self._reply_error(frame, error)
            return
        if method is Method.PING:
            self._reply(frame, Response(frame.body, (frame.payload,)))
            return
        request = Request(method, frame.body, frame.payload, self._link.peer, deadline)
        try:
            response = await self._handler(request)
        except Exception as error:
            refusal = refusal_in(error)
            if refusal is None:
                logger.exception("a handler failed", extra={"method": method.name})
                message = f"{method.name} failed: {type(error).__name__}"
                refusal = FsError(Code.INTERNAL, message)
            self._reply_error(frame, refusal)
        else:
            self._reply(frame, response)

    def _reply(self, frame: Frame, response: Response) -> None:
        header = frame.header
        try:
            views = encode_frame(
                REPLY, header.method, header.request_id, response.body, response.payload
            )
        except FsError as error:
            logger.exception("a reply cannot be sent", extra={"method": header.method})
            if response.release is not None:
                response.release()
            self._reply_error(frame, FsError(Code.INTERNAL, str(error)))
            return
        self._send(frame, views, response.release)

    def _reply_error(self, frame: Frame, error: FsError) -> None:
        header = frame.header
        code = Code.INTERNAL if error.code is Code.OK else error.code
        text = str(error)[: 4 * limits.KIB]
        views = encode_frame(REPLY, header.method, header.request_id, text, code=code)
        self._send(frame, views, None)

    def _send(
        self, frame: Frame, views: list[memoryview], release: Callable[[], None] | None
    ) -> None:
        replied = sum(view.nbytes for view in views)
        self._bytes += replied
        size = frame.header.payload_length + replied
        self._link.send(views, functools.partial(self._sent, size, release))

    def _sent(self, size: int, release: Callable[[], None] | None) -> None:
        try:
            if release is not None:
                release()
        finally:
            self._finished(size)


def _deadline(frame: Frame) -> float:
    milliseconds = frame.header.timeout_ms
    return trio.current_time() + milliseconds / 1000 if milliseconds else math.inf
