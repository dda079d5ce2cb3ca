"""The place where we mount: refused before anything happens if it will not do, and tuned after."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from fireflyfs.errors import Code, FsError
from fireflyfs.supervisor.mountpoint import absolute, check_free

logger = logging.getLogger(__name__)

DEVICE = Path("/dev/fuse")
USER_CONFIG = Path("/etc/fuse.conf")
READ_AHEAD_KIB = 4096
"""How far the kernel reads ahead of a sequential reader: enough requests to keep chains busy."""
BACKGROUND = 64
"""Read-ahead and asynchronous requests of one mount in flight; the kernel's default is 12."""


def check(path: str) -> Path:
    """The absolute path of an empty directory to mount on.

    Raises:
        FsError: ``CONFIG``, one line that says what to do.
    """
    place = absolute(Path(path))
    check_free(place)
    if not DEVICE.exists():
        raise FsError(Code.CONFIG, f"there is no {DEVICE}; load it with: modprobe fuse")
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        raise FsError(Code.CONFIG, f"{DEVICE} may not be opened by uid {os.geteuid()}")
    return place


def options(allow_other: bool) -> set[str]:
    """Mount options. Others than the mounting user are let in for root and on request.

    Raises:
        FsError: ``CONFIG`` for a request that the system's configuration refuses.
    """
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


def tune(place: Path) -> None:
    """Let the kernel read further ahead and ask for more at once, where we may say so (root).

    Asks the mounted file system for its number, so it runs beside the task that answers.
    """
    try:
        device = os.stat(place).st_dev
    except OSError as error:  # unmounted, or told to stop, before it was answered
        logger.info("%s is not tuned: %s", place, error.strerror)
        return
    disk = f"{os.major(device)}:{os.minor(device)}"
    connection = Path("/sys/fs/fuse/connections") / str(os.minor(device))
    _set(Path("/sys/class/bdi") / disk / "read_ahead_kb", READ_AHEAD_KIB)
    _set(connection / "max_background", BACKGROUND)
    _set(connection / "congestion_threshold", BACKGROUND * 3 // 4)


def _set(path: Path, value: int) -> None:
    try:
        path.write_text(f"{value}\n")
    except OSError as error:
        logger.info("%s stays as it is: %s", path, error.strerror)
