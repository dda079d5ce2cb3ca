"""The place where we mount: refused before anything happens if it will not do, and tuned after."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from fireflyfs.errors import Code, FsError

logger = logging.getLogger(__name__)

DEVICE = Path("/dev/fuse")
MOUNTS = Path("/proc/self/mountinfo")
USER_CONFIG = Path("/etc/fuse.conf")
READ_AHEAD_KIB = 4096
"""How far the kernel reads ahead of a sequential reader: enough requests to keep chains busy."""
BACKGROUND = 64
"""Read-ahead and asynchronous requests of one mount in flight; the kernel's default is 12."""


def check(path: str) -> str:
    """The absolute path of a directory to mount on.

    Raises:
        FsError: ``CONFIG``, one line that says what to do.
    """
    place = os.path.realpath(path)
    if mounted(place):
        raise FsError(Code.CONFIG, f"mount point {path} is mounted already; unmount it first")
    try:
        entries = os.listdir(place)
    except FileNotFoundError:
        raise FsError(Code.CONFIG, f"mount point {path} does not exist; make it first") from None
    except NotADirectoryError:
        raise FsError(Code.CONFIG, f"mount point {path} is not a directory") from None
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            advice = f"run: fusermount3 -uz {path}"
            raise FsError(
                Code.CONFIG, f"mount point {path} is a mount without a server; {advice}"
            ) from None
        raise FsError(Code.CONFIG, f"mount point {path}: {error.strerror}") from None
    if entries:
        raise FsError(Code.CONFIG, f"mount point {path} is not empty")
    _check_device()
    return place


def _check_device() -> None:
    if not DEVICE.exists():
        raise FsError(Code.CONFIG, f"there is no {DEVICE}; load it with: modprobe fuse")
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        raise FsError(Code.CONFIG, f"{DEVICE} may not be opened by uid {os.geteuid()}")


def mounted(place: str) -> str | None:
    """``major:minor`` of what is mounted at exactly this path; None if nothing is. Does not touch
    the file system there, so its own server may ask."""
    found = None
    for line in MOUNTS.read_bytes().splitlines():
        fields = line.split(b" ")
        if _unescaped(fields[4]) == os.fsencode(place):
            found = fields[2].decode()  # the last one is on top
    return found


def _unescaped(field: bytes) -> bytes:
    """mountinfo writes space, tab, newline and backslash as three octal digits."""
    parts = field.split(b"\\")
    return parts[0] + b"".join(bytes([int(p[:3], 8)]) + p[3:] for p in parts[1:])


def options(allow_other: bool) -> set[str]:
    """Mount options. Others than the mounting user are let in on request and for root (unless the
    system's configuration keeps users from it, which fusermount3 would refuse)."""
    chosen = {"default_permissions", "fsname=fireflyfs", "subtype=fireflyfs"}
    if os.geteuid() == 0 or (allow_other and _others_allowed()):
        chosen.add("allow_other")
    elif allow_other:
        raise FsError(
            Code.CONFIG, f"allow_other needs the line user_allow_other in {USER_CONFIG}, or root"
        )
    return chosen


def _others_allowed() -> bool:
    try:
        lines = USER_CONFIG.read_text().splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def tune(place: str) -> None:
    """Let the kernel read further ahead and ask for more at once, where we may say so (root)."""
    device = mounted(place)
    if device is None:
        return
    minor = device.partition(":")[2]
    connection = Path("/sys/fs/fuse/connections") / minor
    _set(Path("/sys/class/bdi") / device / "read_ahead_kb", READ_AHEAD_KIB)
    _set(connection / "max_background", BACKGROUND)
    _set(connection / "congestion_threshold", BACKGROUND * 3 // 4)


def _set(path: Path, value: int) -> None:
    try:
        path.write_text(f"{value}\n")
    except OSError as error:
        logger.info("%s stays as it is: %s", path, error.strerror)
