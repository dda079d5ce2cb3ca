"""The data files: one for each block size, grown in steps, written and read at any place.

Every method raises ``OSError``; what that means is decided by the callers (``failures.py``).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fireflyfs.limits import MIB
from storage_service.store import linux
from storage_service.store.allocator import CLASSES, block_size
from storage_service.store.identity import sync_directory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from storage_service.store.record import Location

_MAX_STEP = 16 * MIB
_MIN_STEP = MIB // 4


class BlockFiles:
    """The data files of one store. ``pread`` may be called from any thread, the rest from one."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fds: dict[int, int] = {}
        self._slots = [0] * CLASSES
        self.dirty: set[int] = set()
        """Classes whose file was written since the set was last taken."""
        self.in_memory = False
        directory.mkdir(exist_ok=True)
        for size_class in range(CLASSES):
            path = self._path(size_class)
            if path.exists():
                self._fds[size_class] = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                size = os.fstat(self._fds[size_class]).st_size
                self._slots[size_class] = size // block_size(size_class)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self.in_memory = linux.is_tmpfs(fd)
        os.close(fd)

    def _path(self, size_class: int) -> Path:
        return self._directory / f"{block_size(size_class)}.blocks"

    def slots(self, size_class: int) -> int:
        return self._slots[size_class]

    def grow(self, size_class: int, limit: int) -> int:
        """Preallocate more blocks at the end; how many. Larger files grow in larger steps, of
        ``limit`` bytes at most, but one block always."""
        size = block_size(size_class)
        step = min(max(_MIN_STEP, self._slots[size_class] * size // 4), _MAX_STEP, limit)
        added = max(1, step // size)
        fd = self._fds.get(size_class)
        if fd is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            fd = self._fds[size_class] = os.open(self._path(size_class), flags, 0o600)
            sync_directory(self._directory)
        start = self._slots[size_class] * size
        try:
            os.posix_fallocate(fd, start, added * size)
        except OSError:
            os.ftruncate(fd, start)
            raise
        self._slots[size_class] += added
        self.dirty.add(size_class)
        return added

    def write(self, location: Location, offset: int, buffers: Sequence[memoryview]) -> None:
        size_class, slot = location
        position = slot * block_size(size_class) + offset
        self.dirty.add(size_class)
        fd = self._fds[size_class]
        rest = [buffer for buffer in buffers if len(buffer)]
        while rest:
            done = os.pwritev(fd, rest, position)
            position += done
            while rest and done >= len(rest[0]):
                done -= len(rest.pop(0))
            if rest:
                rest[0] = rest[0][done:]

    def pread(self, location: Location, offset: int, into: memoryview) -> None:
        """Fill ``into``; what a shortened file lacks stays as it is (sums will not match)."""
        size_class, slot = location
        position = slot * block_size(size_class) + offset
        while into:
            done = os.preadv(self._fds[size_class], [into], position)
            if done == 0:
                return
            into = into[done:]
            position += done

    def pread_nowait(self, location: Location, offset: int, into: memoryview) -> bool:
        """Fill ``into`` from the page cache only; False if that would wait for the device."""
        size_class, slot = location
        position = slot * block_size(size_class) + offset
        flags = 0 if self.in_memory else os.RWF_NOWAIT
        try:
            return os.preadv(self._fds[size_class], [into], position, flags) == len(into)
        except OSError:
            return False  # the read in a thread meets the same error, if it was one

    def punch(self, location: Location) -> None:
        size_class, slot = location
        size = block_size(size_class)
        linux.punch_hole(self._fds[size_class], slot * size, size)

    def take_dirty(self) -> list[int]:
        taken, self.dirty = sorted(self.dirty), set()
        return taken

    def sync(self, size_classes: Sequence[int]) -> None:
        for size_class in size_classes:
            os.fdatasync(self._fds[size_class])

    def sync_all(self) -> None:
        self.sync(list(self._fds))

    def free_bytes(self) -> int:
        """That the file system still offers."""
        status = os.statvfs(self._directory)
        return status.f_bavail * status.f_frsize

    def total_bytes(self) -> int:
        """The size of the file system."""
        status = os.statvfs(self._directory)
        return status.f_blocks * status.f_frsize

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
