"""Names and directories that go."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError
from fireflyfs.ids import InodeId
from fireflyfs.kv import keys
from fireflyfs.rpc import meta_pb2 as pb
from meta_service import rows
from meta_service.names import check_name

if TYPE_CHECKING:
    from fireflyfs.kv.base import Transaction
    from meta_service.operation import Context


async def unlink(tr: Transaction, request: pb.UnlinkRequest, context: Context) -> pb.UnlinkReply:
    """Raises FsError: ``NOT_FOUND``, ``IS_DIRECTORY``."""
    check_name(request.name)
    parent = InodeId(request.parent)
    entry = await rows.need_entry(tr, parent, request.name)
    if stat.S_ISDIR(entry.type):
        raise FsError(Code.IS_DIRECTORY, f"{request.name!r} is a directory")
    inode = InodeId(entry.inode)
    row = await rows.get_inode(tr, inode)
    tr.clear(keys.dentry_key(parent, request.name))
    rows.entries_changed(tr, parent, context.now)
    await rows.drop_link(tr, inode, row, context.now)
    return pb.UnlinkReply(inode=rows.attributes_of_file(inode, row))


async def rmdir(tr: Transaction, request: pb.RmdirRequest, context: Context) -> pb.Empty:
    """Raises FsError: ``NOT_FOUND``, ``NOT_DIRECTORY``, ``NOT_EMPTY``."""
    check_name(request.name)
    parent = InodeId(request.parent)
    entry = await rows.need_entry(tr, parent, request.name)
    if not stat.S_ISDIR(entry.type):
        raise FsError(Code.NOT_DIRECTORY, f"{request.name!r} is not a directory")
    inode = InodeId(entry.inode)
    row = await rows.get_inode(tr, inode)
    await rows.check_empty(tr, inode)
    tr.clear(keys.dentry_key(parent, request.name))
    rows.entries_changed(tr, parent, context.now, links=-1)
    rows.forget_inode(tr, inode, row, context.now)
    return pb.Empty()
