"""What an error of the operating system means to a target."""

from __future__ import annotations

import errno

from fireflyfs.errors import Code, FsError

_FULL = {errno.ENOSPC, errno.EDQUOT}


def translated(error: OSError, what: str) -> FsError:
    """NO_SPACE for a full disk; TARGET_FAILED for anything else (EIO, EROFS, ...)."""
    if error.errno in _FULL:
        return FsError(Code.NO_SPACE, f"{what}: the disk is full")
    return FsError(Code.TARGET_FAILED, what)
