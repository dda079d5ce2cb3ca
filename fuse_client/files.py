"""Open files: sessions, bytes, and telling the metadata server about lengths and times.

A write is on every serving replica when ``write`` returns. Length and mtime follow: they are kept
here at once, and reported when a descriptor is closed, by fsync, before a change of attributes, and
at most ``REPORT_DELAY`` seconds after the write.
"""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import TYPE_CHECKING

import trio

from fireflyfs.client.file import FileIO
from fireflyfs.client.together import together
from fireflyfs.clock import file_time_ns
from fireflyfs.errors import Code, FsError
from fireflyfs.rpc.meta_pb2 import (
    Caller,
    CloseRequest,
    CreateRequest,
    GetAttrRequest,
    OpenRequest,
    ReportRequest,
    SetAttrRequest,
)
from fireflyfs.rpc.methods import MetaRpc
from fuse_client.handles import OpenFile
from fuse_client.translate import CACHE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fireflyfs.client.meta import MetaClient
    from fireflyfs.client.storage import StorageClient
    from fireflyfs.rpc.meta_pb2 import Inode
    from fuse_client.inodes import Inodes, Known

logger = logging.getLogger(__name__)

REPORT_DELAY = 0.8
"""Seconds: a length is known to the whole cluster one second after the write."""


class Files:
    def __init__(self, meta: MetaClient, storage: StorageClient, inodes: Inodes) -> None:
        self._meta = meta
        self._storage = storage
        self._inodes = inodes
        self._unreported: dict[int, Known] = {}
        self._wrote = trio.Event()

    # Attributes

    async def refresh(self, inode: int, caller: Caller | None = None) -> Known:
        """Fresh attributes. An inode without names that only we still hold keeps the last ones.

        Raises:
            FsError: ``STALE_INODE``.
        """
        request = GetAttrRequest(inode=inode, caller=caller)
        try:
            reply = await self._meta.call(MetaRpc.GET_ATTR, request)
        except FsError as error:
            known = self._inodes.get(inode)
            gone = error.code in (Code.STALE_INODE, Code.NOT_FOUND)
            if known is None or not gone or known.inode.nlink:
                raise
            return known
        return self._inodes.known(reply.inode)

    async def change(self, known: Known, request: SetAttrRequest) -> None:
        """Set attributes, after what was written before. A new length cuts the chunks first."""
        async with known.reporting:
            await self._report(known, durable=False)
            if not request.HasField("length"):
                known.changed_by_us((await self._meta.call(MetaRpc.SET_ATTR, request)).inode)
                return
            async with known.writes.shut():
                await self._cut(known, request.length)
                reply = await self._meta.call(MetaRpc.SET_ATTR, request)
                known.truncated(reply.inode)
                self._settle(known)

    async def _cut(self, known: Known, length: int) -> None:
        await self.refresh(known.id)  # another mount may have written more
        if length < known.length:
            await self._io(known).truncate(known.length, length)

    # Opening and closing

    async def create(self, request: CreateRequest, flags: int) -> tuple[OpenFile, Inode]:
        """Make a file, or open the one that another mount has made just now."""
        reply = await self._meta.call(MetaRpc.CREATE, request)
        known = self._inodes.known(reply.inode)
        if reply.created:
            known.opens += 1
            known.opened(reply.inode)
            # The kernel asks for capabilities before the first write: a new file has none.
            known.plain_until = trio.current_time() + CACHE_SECONDS
            return OpenFile(known, flags), reply.inode
        file, _ = await self.open(known, flags, request.caller)
        return file, known.inode

    async def open(self, known: Known, flags: int, caller: Caller) -> tuple[OpenFile, bool]:
        """Open a known inode; also says whether the kernel may keep the pages it has of it.

        Attributes are fetched anew, so what others closed before is seen (close-to-open).
        """
        known.opens += 1  # from here on nobody ends the session
        try:
            reply = await self._begin_session(known, flags, caller)
            keep = known.opened(reply)
            if flags & os.O_TRUNC:
                await self.change(known, SetAttrRequest(inode=known.id, length=0, caller=caller))
        except BaseException:
            known.opens -= 1
            self._inodes.drop_unused(known)
            raise
        return OpenFile(known, flags), keep

    async def _begin_session(self, known: Known, flags: int, caller: Caller) -> Inode:
        writing = flags & os.O_ACCMODE != os.O_RDONLY
        request = OpenRequest(inode=known.id, write=writing, caller=caller)
        if known.opens > 1 and not known.session.locked():
            return (await self._meta.call(MetaRpc.OPEN, request)).inode
        async with known.session:  # a close may be on its way
            return (await self._meta.call(MetaRpc.OPEN, request)).inode

    async def close(self, file: OpenFile) -> None:
        """The session on the server ends with the last open file of the inode."""
        known = file.known
        known.opens -= 1
        try:
            if not known.opens:
                async with known.session:
                    if not known.opens:  # nobody opened it while we waited
                        await self._end_session(known)
        finally:
            self._inodes.drop_unused(known)

    async def _end_session(self, known: Known) -> None:
        try:
            await self.report(known)
        finally:
            request = CloseRequest(inode=known.id)
            if known.unreported is not None:
                # Without its session nobody will settle the length, should this mount end first.
                request.length, request.mtime = known.unreported.length, known.unreported.mtime
            await self._meta.call(MetaRpc.CLOSE, request)

    async def renew_sessions(self) -> None:
        """After a silence in which the servers may have taken this mount for dead. Files without
        names went with their sessions; reading zeros in place of their bytes would be a lie.

        Raises:
            FsError: the first failure; some sessions may then be missing.
        """
        await together([partial(self._renew, known) for known in self._inodes if known.opens])

    async def _renew(self, known: Known) -> None:
        async with known.session:
            if not known.opens:
                return
            try:
                request = OpenRequest(inode=known.id, write=True, caller=Caller())
                known.learned((await self._meta.call(MetaRpc.OPEN, request)).inode)
            except FsError as error:
                if error.code is not Code.STALE_INODE:
                    raise
                logger.error("inode %d was removed while this mount was not heard", known.id)
                known.is_gone = True

    # Bytes

    async def read(self, file: OpenFile, offset: int, size: int) -> bytearray:
        """At most ``size`` bytes from ``offset`` on; fewer at the end of the file."""
        known = file.known
        data = bytearray(max(0, min(size, known.length - offset)))
        if data:
            await self._io(known).pread(offset, memoryview(data))
        return data

    async def write(self, file: OpenFile, offset: int, data: bytes) -> None:
        known = file.known
        await known.writes.wait_open()
        with known.writes.inside():
            await self._io(known).pwrite(offset, memoryview(data))
            known.wrote(offset + len(data), file_time_ns())
        self._unreported[known.id] = known
        self._wrote.set()
        if file.synchronous:
            await self.sync(known)

    async def sync(self, known: Known) -> None:
        """Bytes, length and times are on the media when this returns."""
        await self._io(known).flush()
        await self.report(known, durable=True)

    def _io(self, known: Known) -> FileIO:
        if known.is_gone:
            raise FsError(Code.STALE_INODE, f"inode {known.id} has been removed")
        if known.io is None:
            known.io = FileIO(self._storage, known.id, known.layout(), known.length)
        return known.io

    # Reporting

    async def report(self, known: Known, *, durable: bool = False) -> None:
        """Tell the server what it has not heard of. What fails to be told stays to be told.

        Raises:
            FsError: the last failure, at the deadline; ``STALE_INODE`` when the file is gone.
        """
        if known.unreported is None and not durable and not known.reporting.locked():
            return
        async with known.reporting:
            await self._report(known, durable)

    async def _report(self, known: Known, durable: bool) -> None:
        told = known.unreported
        if told is None and not durable:
            return
        request = ReportRequest(inode=known.id, durable=durable)
        if told is not None:
            request.length, request.mtime = told.length, told.mtime
        try:
            reply = await self._meta.call(MetaRpc.REPORT, request)
        except FsError as error:
            if error.code is Code.STALE_INODE:
                known.unreported = None  # nobody can see it any more
                self._settle(known)
            raise
        known.reported(told, reply.inode)
        self._settle(known)

    def _settle(self, known: Known) -> None:
        if known.unreported is None:
            self._unreported.pop(known.id, None)
            self._inodes.drop_unused(known)

    async def report_in_background(self) -> None:
        """Report for ever, ``REPORT_DELAY`` seconds after the first write that is not reported."""
        while True:
            await self._wrote.wait()
            self._wrote = trio.Event()
            await trio.sleep(REPORT_DELAY)
            await together([partial(self._try, self.report, k) for k in self._waiting()])
            if self._unreported:
                self._wrote.set()

    def _waiting(self) -> list[Known]:
        return list(self._unreported.values())

    async def _try(self, tell: Callable[[Known], Awaitable[None]], known: Known) -> None:
        try:
            await tell(known)
        except FsError as error:
            logger.warning("telling of inode %d failed: %s", known.id, error)

    async def finish(self, seconds: float) -> None:
        """At unmount: report everything and end all sessions, as far as that works in time."""
        with trio.move_on_after(seconds):
            await together([partial(self._try, self.report, k) for k in self._waiting()])
            still_open = [known for known in self._inodes if known.opens]
            await together([partial(self._try, self._end_session, k) for k in still_open])
