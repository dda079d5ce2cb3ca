"""Where a process listens: ``tcp://127.0.0.1:7000`` or ``unix:///run/fireflyfs/meta.sock``."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fireflyfs.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_UNIX_PATH = 107
"""sockaddr_un.sun_path without its final NUL, in bytes (unix(7))."""


@dataclass(frozen=True, slots=True)
class Address:
    """``host`` and ``port`` belong to ``tcp``, ``path`` (absolute) to ``unix``."""

    scheme: Literal["tcp", "unix"]
    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises FsError(INVALID), naming the address, for anything but the two forms above."""
        scheme, separator, rest = text.partition("://")
        if separator and scheme == "unix":
            return cls("unix", path=_checked_path(text, rest))
        if separator and scheme == "tcp":
            host, _, port = rest.rpartition(":")
            return cls("tcp", host=_checked_host(text, host), port=_checked_port(text, port))
        raise _invalid(text, "it must be tcp://HOST:PORT or unix:///PATH")

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Only processes of this machine can connect to it."""
        if self.scheme == "unix" or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def preferred(addresses: Sequence[str]) -> list[Address]:
    """In the order to try: Unix sockets that exist on this host, then TCP, in the given order.

    Unix sockets that do not exist here belong to another host (or a process that is down) and are
    left out. Raises FsError(INVALID) for an address that cannot be read.
    """
    parsed = [Address.parse(text) for text in addresses]
    sockets = [a for a in parsed if a.scheme == "unix" and os.path.exists(a.path)]
    return sockets + [a for a in parsed if a.scheme == "tcp"]


def _invalid(text: str, why: str) -> FsError:
    return FsError(Code.INVALID, f"bad address {text!r}: {why}")


def _checked_path(text: str, path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise _invalid(text, "the socket's path must be absolute")
    if len(os.fsencode(path)) > _MAX_UNIX_PATH:
        raise _invalid(text, f"the socket's path is longer than {_MAX_UNIX_PATH} bytes")
    return path


def _checked_host(text: str, host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise _invalid(text, "an IPv6 address is written in brackets")
    if not host or not host.isprintable() or any(c in host for c in "/@[] "):
        raise _invalid(text, "the host is missing or not a host name")
    return host


def _checked_port(text: str, port: str) -> int:
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise _invalid(text, "the port must be a number from 0 to 65535")
    return int(port)
