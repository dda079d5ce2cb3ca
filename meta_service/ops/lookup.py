"""What is there: by name, by number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fireflyfs.ids import InodeId
from fireflyfs.rpc import meta_pb2 as pb
from meta_service import rows
from meta_service.names import check_name

if TYPE_CHECKING:
    from fireflyfs.kv.base import Transaction
    from meta_service.operation import Context


async def lookup(tr: Transaction, request: pb.LookupRequest, context: Context) -> pb.InodeReply:
    """Raises FsError: ``NOT_FOUND``, ``NOT_DIRECTORY``, ``STALE_INODE`` (parent), bad names."""
    check_name(request.name)
    entry = await rows.need_entry(tr, InodeId(request.parent), request.name)
    inode = InodeId(entry.inode)
    row = await rows.get_inode(tr, inode)
    return pb.InodeReply(inode=await rows.attributes(tr, inode, row))


async def get_attr(tr: Transaction, request: pb.GetAttrRequest, context: Context) -> pb.InodeReply:
    """Raises FsError: ``STALE_INODE``."""
    inode = InodeId(request.inode)
    row = await rows.get_inode(tr, inode)
    return pb.InodeReply(inode=await rows.attributes(tr, inode, row))
