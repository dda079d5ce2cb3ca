"""Another name for a file."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError
from fireflyfs.ids import InodeId
from fireflyfs.limits import MAX_LINKS
from fireflyfs.rpc import meta_pb2 as pb
from meta_service import rows
from meta_service.names import check_name

if TYPE_CHECKING:
    from fireflyfs.kv.base import Transaction
    from meta_service.operation import Context


async def link(tr: Transaction, request: pb.LinkRequest, context: Context) -> pb.InodeReply:
    """Raises FsError: ``NOT_PERMITTED`` (a directory), ``EXISTS``, ``TOO_MANY_LINKS``;
    ``NOT_FOUND`` when the file lost its last name and is only held open."""
    check_name(request.name)
    inode, parent = InodeId(request.inode), InodeId(request.parent)
    row = await rows.get_inode(tr, inode)
    if stat.S_ISDIR(row.mode):
        raise FsError(Code.NOT_PERMITTED, f"inode {inode} is a directory: it has one name only")
    await rows.get_directory(tr, parent)
    if await rows.get_entry(tr, parent, request.name) is not None:
        raise FsError(Code.EXISTS, f"{request.name!r} is in directory {parent} already")
    if not row.nlink:
        raise FsError(Code.NOT_FOUND, f"inode {inode} has been removed")
    if row.nlink >= MAX_LINKS:
        raise FsError(Code.TOO_MANY_LINKS, f"inode {inode} has {row.nlink} links")
    row.nlink += 1
    row.ctime = context.now
    rows.put_inode(tr, inode, row)
    rows.put_entry(tr, parent, request.name, inode, row.mode)
    rows.entries_changed(tr, parent, context.now)
    return pb.InodeReply(inode=rows.attributes_of_file(inode, row))
