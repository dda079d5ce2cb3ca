"""The two system calls that the standard library lacks: fallocate(2) to punch, statfs(2)."""

from __future__ import annotations

import ctypes
import os

_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02
_TMPFS_MAGIC = 0x01021994

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong]
_libc.fstatfs.argtypes = [ctypes.c_int, ctypes.c_void_p]


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Give the bytes back to the file system; they read as zeros. Raises ``OSError``."""
    if _libc.fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def is_tmpfs(fd: int) -> bool:
    """Whether the file lives in memory: then a plain read never waits for a device."""
    buffer = (ctypes.c_long * 32)()
    return _libc.fstatfs(fd, buffer) == 0 and buffer[0] == _TMPFS_MAGIC
