"""Files that clients have open, and what they report while they write.

A session is one row for each (inode, client): the client counts its own handles and closes with the
last. While there is a session, a file without names stays.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError
from fireflyfs.ids import ClientId, InodeId
from fireflyfs.kv import keys
from fireflyfs.rpc import meta_pb2 as pb
from meta_service import rows
from meta_service.names import check_client, check_length
from meta_service.schema import InodeRow, SessionRow, decode, encode

if TYPE_CHECKING:
    from fireflyfs.kv.base import Transaction
    from meta_service.operation import Context


async def open_(tr: Transaction, request: pb.OpenRequest, context: Context) -> pb.InodeReply:
    """Register the client's session; only regular files have one.

    Raises:
        FsError: ``STALE_INODE``, ``IS_DIRECTORY`` (for writing), ``LOOP`` (a symbolic link),
        ``INVALID`` without a client.
    """
    check_client(request.caller.client_id)
    inode, client = InodeId(request.inode), ClientId(request.caller.client_id)
    row = await rows.get_inode(tr, inode)
    if stat.S_ISLNK(row.mode):
        raise FsError(Code.LOOP, f"inode {inode} is a symbolic link")
    if stat.S_ISDIR(row.mode) and request.write:
        raise FsError(Code.IS_DIRECTORY, f"inode {inode} is a directory")
    if stat.S_ISREG(row.mode):
        known = await tr.get(keys.session_key(inode, client))
        if known is None or (request.write and not decode(SessionRow, known).write):
            open_session(tr, inode, client, context.now, write=request.write)
    return pb.InodeReply(inode=await rows.attributes(tr, inode, row))


async def close(tr: Transaction, request: pb.CloseRequest, context: Context) -> pb.Empty:
    """End the client's session; harmless when there is none (it was silent for too long)."""
    check_client(request.caller.client_id)
    check_length(request.length)
    inode, client = InodeId(request.inode), ClientId(request.caller.client_id)
    try:
        row = await rows.get_inode(tr, inode)
    except FsError as error:
        if error.code is not Code.STALE_INODE:
            raise
        return pb.Empty()
    changed = grow(row, request.length, request.mtime, context.now)
    close_session(tr, inode, client)
    if not row.nlink and not await rows.is_open(tr, inode):
        tr.clear(keys.orphan_key(inode))
        rows.forget_inode(tr, inode, row, context.now)
    elif changed:
        rows.put_inode(tr, inode, row)
    return pb.Empty()


async def report(tr: Transaction, request: pb.ReportRequest, context: Context) -> pb.InodeReply:
    """Length and mtime after writes. The service makes it durable if that is asked.

    Raises:
        FsError: ``STALE_INODE``, ``INVALID`` (not a regular file), ``FILE_TOO_LARGE``.
    """
    check_length(request.length)
    inode = InodeId(request.inode)
    row = await rows.get_inode(tr, inode)
    if not stat.S_ISREG(row.mode):
        if request.length or request.mtime:
            raise FsError(Code.INVALID, f"inode {inode} is not a regular file")
    elif grow(row, request.length, request.mtime, context.now):
        rows.put_inode(tr, inode, row)
    return pb.InodeReply(inode=await rows.attributes(tr, inode, row))


def grow(row: InodeRow, length: int, mtime: int, now: int) -> bool:
    """Take in what a writer reports; false when it reports nothing.

    A write always counts as a change, also one whose time is not later than the last (two writers
    in one tick, or clocks that differ): caches go by the change counter.

    The length only grows. An mtime that lies in the future was set by hand, and a write resets it;
    otherwise the latest write counts. A client forgets its unreported write time when it sets the
    mtime itself, so that a close does not undo utimens(2).
    """
    longer = stat.S_ISREG(row.mode) and length > row.length
    if longer:
        row.length = length
        row.peak = max(row.peak, length)
    if mtime and (mtime > row.mtime or mtime < now < row.mtime):
        row.mtime = mtime
        row.ctime = max(row.ctime, mtime)
    return longer or bool(mtime)


def open_session(
    tr: Transaction, inode: InodeId, client: ClientId, now: int, *, write: bool
) -> None:
    tr.set(keys.session_key(inode, client), encode(SessionRow(now, write)))
    tr.set(keys.client_session_key(client, inode), b"")


def close_session(tr: Transaction, inode: InodeId, client: ClientId) -> None:
    tr.clear(keys.session_key(inode, client))
    tr.clear(keys.client_session_key(client, inode))
