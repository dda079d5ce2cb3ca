"""Can this machine mount at all: what ``up`` and ``mount`` check first, and ``doctor`` in full."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from fireflyfs.errors import Code, FsError
from fireflyfs.kv import moving
from fireflyfs.kv.open import open_engine

FUSE_DEVICE = Path("/dev/fuse")


def check_fuse() -> None:
    """Raises FsError(CONFIG) in one line if FUSE cannot work here."""
    problem = fuse_device_problem() or fusermount_problem()
    if problem:
        raise FsError(Code.CONFIG, problem)


async def check_store(url: str) -> None:
    """Raises FsError(CONFIG) unless a new namespace may be put at ``url``: it answers, and holds
    nothing yet."""
    engine = await open_engine(url)
    try:
        empty = await moving.is_empty(engine, timeout=5.0)
    except FsError as error:
        raise FsError(Code.CONFIG, f"cannot use {url}") from error
    finally:
        await engine.close()
    if not empty:
        raise FsError(Code.CONFIG, f"{url} is in use: it holds a namespace already")


def fuse_device_problem() -> str:
    """Empty if the device is there and we may open it."""
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"there is no {FUSE_DEVICE}: modprobe fuse (in a container: --device {FUSE_DEVICE})"
    except OSError as error:
        return f"cannot open {FUSE_DEVICE}: {error.strerror}"
    return ""


def fusermount_problem() -> str:
    if shutil.which("fusermount3"):
        return ""
    return "fusermount3 is not installed: apt-get install fuse3"
