"""Sockets to listen on and to connect with."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

import trio

from fireflyfs.errors import Code, FsError
from fireflyfs.net.address import Address

BACKLOG = 512


async def listen(address: Address) -> tuple[socket.socket, Address]:
    """A listening socket and its address with the port that was taken.

    Raises FsError(CONFIG): in use, not ours to take, not an address of this host.
    """
    try:
        if address.scheme == "unix":
            return _listen_unix(address.path), address
        return await _listen_tcp(address)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise FsError(Code.CONFIG, f"cannot listen on {address}: {reason}") from None


async def connect(address: Address) -> socket.socket:
    """A connected, non-blocking socket. Raises OSError."""
    if address.scheme == "unix":
        return await _connect(socket.AF_UNIX, address.path)
    found = await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    problem: OSError | None = None
    for family, _, _, _, target in found:
        try:
            return await _connect(family, target)
        except OSError as error:
            problem = problem or error
    raise problem or OSError(errno.EADDRNOTAVAIL, "no such host")


def unlink_socket(path: str) -> None:
    """Remove the path of a socket that was closed, unless another process has taken it over."""
    with contextlib.suppress(OSError):
        if _is_refused(path):
            os.unlink(path)


def _listen_unix(path: str) -> socket.socket:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(path)
        os.chmod(path, 0o600)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    """A process that was killed leaves its socket's path behind; nobody listens on it."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FsError(Code.CONFIG, f"cannot listen on unix://{path}: another file is there")
    if not _is_refused(path):
        raise FsError(Code.CONFIG, f"cannot listen on unix://{path}: another process does")
    os.unlink(path)


def _is_refused(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except BlockingIOError:  # its backlog is full: somebody listens
            return False
    return False


async def _listen_tcp(address: Address) -> tuple[socket.socket, Address]:
    found = await trio.socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, target = found[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(target)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock, Address("tcp", host=address.host, port=sock.getsockname()[1])


async def _connect(family: int, target: object) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await _finish_connect(sock, target)
    except BaseException:
        sock.close()
        raise
    return sock


async def _finish_connect(sock: socket.socket, target: object) -> None:
    while (number := sock.connect_ex(target)) == errno.EAGAIN:  # type: ignore[arg-type]  # noqa: ASYNC110
        await trio.sleep(0.01)  # the listener's backlog is full (Unix sockets do not queue)
    if number == errno.EINPROGRESS:
        await trio.lowlevel.wait_writable(sock)
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, os.strerror(number))
