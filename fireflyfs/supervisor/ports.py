"""Loopback ports for the servers of one machine."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from fireflyfs.errors import Code, FsError

LOWEST = 10_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Ports free now, below those that the kernel hands to clients: written into a configuration,
    they are most likely free after a reboot too. Raises FsError(CONFIG) if there are not enough.
    """
    candidates = list(range(LOWEST, _ephemeral_start()))
    random.shuffle(candidates)  # two clusters made at the same moment should not meet
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            break
        if is_free(port):
            found.append(port)
    if len(found) < count:
        raise FsError(Code.CONFIG, f"fewer than {count} loopback ports are free from {LOWEST} up")
    return found


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        # As the servers do: connections of an earlier life in TIME_WAIT do not make a port busy.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _ephemeral_start() -> int:
    try:
        start = int(_EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        start = 32768
    # A machine tuned to use nearly all ports for clients leaves no better choice than these.
    return start if start > LOWEST + 1000 else 60_000
