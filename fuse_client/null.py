"""A file system that does nothing, as fast as pyfuse3 can: a ceiling for ``fireflyfs bench``.

Names and sizes live in dictionaries, reads answer a constant buffer, writes are counted and
forgotten. Run as ``python -m fuse_client.null MOUNTPOINT``; SIGTERM unmounts.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
import time
from typing import TYPE_CHECKING

import pyfuse3
import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyfuse3 import FileHandleT, FileNameT, FlagT, InodeT, ModeT

CONSTANT = bytes(1 << 20)


class NullOperations(pyfuse3.Operations):
    """One flat map of names for each directory; no permissions, no times, no data."""

    def __init__(self) -> None:
        super().__init__()
        self._sizes: dict[int, int] = {pyfuse3.ROOT_INODE: 0}
        self._modes: dict[int, int] = {pyfuse3.ROOT_INODE: stat.S_IFDIR | 0o755}
        self._names: dict[tuple[int, bytes], int] = {}
        self._last = int(pyfuse3.ROOT_INODE)
        self._started = time.time_ns()

    def _attributes(self, inode: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = self._modes[inode]
        entry.st_size = self._sizes[inode]
        entry.st_nlink = 1
        entry.st_uid, entry.st_gid = os.getuid(), os.getgid()
        entry.st_blksize = 1 << 20
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = self._started
        entry.attr_timeout = entry.entry_timeout = 1
        return entry

    def _add(self, parent: int, name: bytes, mode: int) -> int:
        self._last += 1
        self._names[parent, name] = self._last
        self._modes[self._last] = mode
        self._sizes[self._last] = 0
        return self._last

    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        inode = self._names.get((parent_inode, name))
        if inode is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._attributes(inode)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        return None

    async def getattr(self, inode: InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._attributes(inode)

    async def setattr(
        self,
        inode: InodeT,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: FileHandleT | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        if fields.update_size:
            self._sizes[inode] = attr.st_size
        return self._attributes(inode)

    async def mkdir(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._attributes(self._add(parent_inode, name, stat.S_IFDIR | mode))

    async def unlink(
        self, parent_inode: InodeT, name: FileNameT, ctx: pyfuse3.RequestContext
    ) -> None:
        self._names.pop((parent_inode, name), None)

    async def create(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        mode: ModeT,
        flags: FlagT,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        inode = self._add(parent_inode, name, mode)
        return pyfuse3.FileInfo(fh=inode), self._attributes(inode)

    async def open(
        self, inode: InodeT, flags: FlagT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=inode)

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        return CONSTANT if size == len(CONSTANT) else CONSTANT[:size]

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        self._sizes[fh] = max(self._sizes[fh], off + len(buf))
        return len(buf)

    async def flush(self, fh: FileHandleT) -> None:
        return None

    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        return None

    async def release(self, fh: FileHandleT) -> None:
        return None


async def serve(mountpoint: str) -> None:
    """Answer the kernel until SIGTERM or SIGINT, then unmount."""
    pyfuse3.init(NullOperations(), mountpoint, {"fsname=fireflyfs-null", "default_permissions"})

    async def stop() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                pyfuse3.terminate()
                return

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop)
            await pyfuse3.main()
            nursery.cancel_scope.cancel()
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    trio.run(serve, sys.argv[1])
