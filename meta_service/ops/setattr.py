"""chmod, chown, utimens, truncate: any of them in one change."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError
from fireflyfs.ids import InodeId
from fireflyfs.kv import keys
from fireflyfs.rpc import meta_pb2 as pb
from meta_service import rows
from meta_service.names import PERMISSION_BITS, check_length
from meta_service.schema import TimesRow, decode

if TYPE_CHECKING:
    from fireflyfs.kv.base import Transaction
    from meta_service.operation import Context
    from meta_service.schema import InodeRow


async def set_attr(tr: Transaction, request: pb.SetAttrRequest, context: Context) -> pb.InodeReply:
    """Change what is set in the request; ctime becomes now unless it is set as well.

    Raises:
        FsError: ``STALE_INODE``; for a length ``FILE_TOO_LARGE``, ``IS_DIRECTORY``, ``INVALID``
            (not a regular file).
    """
    inode = InodeId(request.inode)
    row = await rows.get_inode(tr, inode)
    if request.HasField("length"):
        _set_length(row, request.length, context.now)
    _set_owner(row, request)
    if request.HasField("mode"):
        row.mode = stat.S_IFMT(row.mode) | request.mode & PERMISSION_BITS
    if request.HasField("atime"):
        row.atime = request.atime
    if request.HasField("mtime"):
        row.mtime = request.mtime
    row.ctime = request.ctime if request.HasField("ctime") else context.now
    if stat.S_ISDIR(row.mode):
        await _set_directory_times(tr, inode, request, row)
    rows.put_inode(tr, inode, row)
    return pb.InodeReply(inode=await rows.attributes(tr, inode, row))


def _set_length(row: InodeRow, length: int, now: int) -> None:
    check_length(length)
    if stat.S_ISDIR(row.mode):
        raise FsError(Code.IS_DIRECTORY, "a directory cannot be truncated")
    if not stat.S_ISREG(row.mode):
        raise FsError(Code.INVALID, "only regular files can be truncated")
    row.length = length
    row.peak = max(row.peak, length)
    row.mtime = now


def _set_owner(row: InodeRow, request: pb.SetAttrRequest) -> None:
    """A new owner or group takes setuid and setgid off a file, whoever asks, as Linux does."""
    changes = request.HasField("uid") or request.HasField("gid")
    if request.HasField("uid"):
        row.uid = request.uid
    if request.HasField("gid"):
        row.gid = request.gid
    if changes and not stat.S_ISDIR(row.mode):
        row.mode &= ~stat.S_ISUID
        if row.mode & stat.S_IXGRP:
            row.mode &= ~stat.S_ISGID


async def _set_directory_times(
    tr: Transaction, inode: InodeId, request: pb.SetAttrRequest, row: InodeRow
) -> None:
    """The times that entries' changes write: an explicit one overrides, the next change goes on."""
    if request.HasField("mtime"):
        rows.set_times(tr, inode, request.mtime, row.ctime)
    elif request.HasField("ctime"):
        stored = await tr.get(keys.dir_times_key(inode), snapshot=True)
        mtime = decode(TimesRow, stored).mtime if stored is not None else row.mtime
        rows.set_times(tr, inode, mtime, row.ctime)
