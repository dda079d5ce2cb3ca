"""New directories."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError
from fireflyfs.ids import InodeId
from fireflyfs.rpc import meta_pb2 as pb
from meta_service import rows
from meta_service.names import PERMISSION_BITS, check_name
from meta_service.ops.create import new_row

if TYPE_CHECKING:
    from fireflyfs.kv.base import Transaction
    from meta_service.operation import Context


async def mkdir(tr: Transaction, request: pb.MkdirRequest, context: Context) -> pb.InodeReply:
    """Make an empty directory; in a setgid directory it is setgid as well.

    Raises:
        FsError: ``EXISTS``, ``NOT_DIRECTORY``, ``STALE_INODE`` (parent).
    """
    check_name(request.name)
    parent, inode = InodeId(request.parent), context.new_inode
    directory = await rows.get_directory(tr, parent)
    if await rows.get_entry(tr, parent, request.name) is not None:
        raise FsError(Code.EXISTS, f"{request.name!r} is in directory {parent} already")
    inherited = directory.mode & stat.S_ISGID
    mode = stat.S_IFDIR | request.mode & PERMISSION_BITS | inherited
    row = new_row(directory, request.caller, mode, context)
    row.parent = parent
    rows.add_inode(tr, inode, row)
    rows.put_entry(tr, parent, request.name, inode, row.mode)
    rows.entries_changed(tr, parent, context.now, links=1)
    return pb.InodeReply(inode=await rows.attributes(tr, inode, row), created=True)
