"""One connected socket that carries frames: receiving, and sending without waiting in the queue.

``send`` writes at once what the kernel takes; the rest is written by ``pump``, a task of the
connection's owner, several messages in one call. So a small reply costs no switch of tasks.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import math
import socket
from typing import TYPE_CHECKING

import trio

from fireflyfs import limits
from fireflyfs.errors import Code, FsError
from fireflyfs.net import handshake
from fireflyfs.net.frame import Destination, Frame, FrameReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from fireflyfs.net.credentials import Credentials

FRAME_SECONDS = 60.0
"""A frame that has begun to arrive is complete within this, and what is sent moves within it, or
the peer is taken for dead."""
HANDSHAKE_SECONDS = 5.0
SOCKET_BUFFER = 4 * limits.MIB
_MAX_VECTORS = 512
_UNYIELDING_RECEIVES = 16
"""Receives without waiting before other tasks get their turn."""
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33


class Outgoing:
    """One message on its way out. ``done`` is called once: sent, or dropped with the connection."""

    __slots__ = ("done", "started", "views")

    def __init__(self, views: list[memoryview], done: Callable[[], None] | None) -> None:
        self.views = views
        self.done = done
        self.started = False

    def finish(self) -> None:
        self.views = []
        done, self.done = self.done, None
        if done is not None:
            done()


class Link:
    """Owns the socket. All methods belong to one trio run; only one task receives at a time."""

    def __init__(
        self, sock: socket.socket, peer: str, destination: Destination | None = None
    ) -> None:
        self.peer = peer
        self.reader = FrameReader(destination)
        self._sock = sock
        self._queue: collections.deque[Outgoing] = collections.deque()
        self._is_blocked = False
        self._pump_lot = trio.lowlevel.ParkingLot()
        self._is_broken = False
        self.is_closed = False

    async def receive(self) -> Frame | None:
        """The next frame; None when the peer has closed the connection between two frames.

        Raises FsError: MALFORMED (the connection is beyond repair), UNREACHABLE (it broke).
        """
        reader = self.reader
        receives = 0
        while (frame := reader.next_frame()) is None:
            buffers = reader.buffers()
            try:
                if len(buffers) == 1:
                    count = self._sock.recv_into(buffers[0])
                else:
                    count = self._sock.recvmsg_into(buffers)[0]
            except BlockingIOError:
                await self._wait_readable()
                receives = 0
                continue
            except OSError as error:
                raise FsError(Code.UNREACHABLE, f"{self.peer}: connection lost") from error
            if not count:
                self._check_end()
                return None
            reader.received(count)
            receives += 1
            if receives == _UNYIELDING_RECEIVES:
                await trio.lowlevel.checkpoint()
                receives = 0
        return frame

    def send(self, views: list[memoryview], done: Callable[[], None] | None = None) -> Outgoing:
        """Send one message; never waits. The buffers must stay as they are until ``done``."""
        message = Outgoing(views, done)
        if self.is_closed or self._is_broken:
            message.finish()
            return message
        self._queue.append(message)
        if not self._is_blocked:
            self._flush()
        return message

    def withdraw(self, message: Outgoing) -> None:
        """Let go of the message's buffers: it is dropped, or if half sent its rest is copied."""
        if not message.views:
            return
        if message.started:
            message.views = [memoryview(bytes(view)) for view in message.views]
        else:
            self._queue.remove(message)
            message.finish()

    async def pump(self) -> None:
        """Write what ``send`` could not; runs until the link is closed."""
        while not self.is_closed:
            if not self._is_blocked or self._is_broken:
                await self._pump_lot.park()
                continue
            with trio.move_on_after(FRAME_SECONDS) as scope:
                with contextlib.suppress(trio.ClosedResourceError):
                    await trio.lowlevel.wait_writable(self._sock)
            if scope.cancelled_caught:
                self.break_off()
            if not self.is_closed and not self._is_broken:
                self._is_blocked = False
                self._flush()

    def break_off(self) -> None:
        """End the conversation, drop what is not sent; the receiving task finds out and closes."""
        self._is_broken = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._drop_queue()

    def close(self) -> None:
        """Idempotent. Drops what is not sent yet."""
        if self.is_closed:
            return
        self.is_closed = True
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()
        self._pump_lot.unpark_all()
        self._drop_queue()

    def _drop_queue(self) -> None:
        while self._queue:
            self._queue.popleft().finish()

    def _flush(self) -> None:
        while self._queue:
            views = self._queue[0].views
            if len(self._queue) > 1:
                all_views = itertools.chain.from_iterable(m.views for m in self._queue)
                views = list(itertools.islice(all_views, _MAX_VECTORS))
            try:
                count = self._sock.sendmsg(views[:_MAX_VECTORS])
            except BlockingIOError:
                self._is_blocked = True
                self._pump_lot.unpark_all()
                return
            except OSError:
                self.break_off()
                return
            self._advance(count)

    def _advance(self, count: int) -> None:
        while self._queue:
            message = self._queue[0]
            views = message.views
            done = 0
            while done < len(views) and count >= views[done].nbytes:
                count -= views[done].nbytes
                done += 1
            if done == len(views):
                self._queue.popleft().finish()
                continue
            if done or count:
                message.started = True
                message.views = [views[done][count:], *views[done + 1 :]]
            return

    async def _wait_readable(self) -> None:
        seconds = FRAME_SECONDS if self.reader.is_inside_frame else math.inf
        try:
            if seconds == math.inf:
                await trio.lowlevel.wait_readable(self._sock)
                return
            with trio.fail_after(seconds):
                await trio.lowlevel.wait_readable(self._sock)
        except trio.TooSlowError:
            raise FsError(Code.TIMED_OUT, f"{self.peer}: a frame stopped half way") from None
        except trio.ClosedResourceError:
            raise FsError(Code.UNREACHABLE, f"{self.peer}: connection closed") from None

    def _check_end(self) -> None:
        if self.reader.is_inside_frame:
            raise FsError(Code.MALFORMED, f"{self.peer}: the connection ended inside a frame")


def tune(sock: socket.socket) -> None:
    """Non-blocking, large buffers, no delay, and a dead peer found within seconds."""
    sock.setblocking(False)
    if sock.family == socket.AF_UNIX:
        for forced, plain in (
            (_SO_SNDBUFFORCE, socket.SO_SNDBUF),
            (_SO_RCVBUFFORCE, socket.SO_RCVBUF),
        ):
            try:
                sock.setsockopt(socket.SOL_SOCKET, forced, SOCKET_BUFFER)
            except PermissionError:  # capped by net.core.wmem_max then
                sock.setsockopt(socket.SOL_SOCKET, plain, SOCKET_BUFFER)
        return
    # TCP's buffers are left to the kernel, which grows them beyond what we could ask for.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 15_000)


async def greet(sock: socket.socket, credentials: Credentials) -> None:
    """The client's side of the handshake. Raises FsError (see ``net/handshake.py``)."""
    client = handshake.ClientHandshake(credentials)
    await _send_all(sock, client.hello)
    await _send_all(sock, client.answer(*await _receive_message(sock)))
    client.finish(*await _receive_message(sock))


async def welcome(sock: socket.socket, credentials: Credentials) -> None:
    """The server's side of the handshake; tells a client that can be told why it is refused."""
    server = handshake.ServerHandshake(credentials)
    try:
        await _send_all(sock, server.challenge(*await _receive_message(sock)))
        server.check(*await _receive_message(sock))
    except FsError as error:
        if error.code in (Code.WRONG_CLUSTER, Code.UNAUTHENTICATED):
            await _send_all(sock, handshake.result(error.code))
        raise
    await _send_all(sock, handshake.result(Code.OK))


async def _receive_message(sock: socket.socket) -> tuple[int, bytes]:
    kind, length = handshake.parse_prefix(await _receive_exactly(sock, handshake.PREFIX_SIZE))
    return kind, await _receive_exactly(sock, length)


async def _receive_exactly(sock: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        try:
            part = sock.recv(length - len(data))
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock)
            continue
        except OSError as error:
            raise FsError(Code.UNREACHABLE, "the connection broke in the handshake") from error
        if not part:
            raise FsError(Code.UNREACHABLE, "the connection ended in the handshake")
        data += part
    return bytes(data)


async def _send_all(sock: socket.socket, data: bytes) -> None:
    while data:
        try:
            data = data[sock.send(data) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
        except OSError as error:
            raise FsError(Code.UNREACHABLE, "the connection broke in the handshake") from error
