"""Extended attributes: namespaces user, trusted and security."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError
from fireflyfs.ids import InodeId
from fireflyfs.kv import keys
from fireflyfs.limits import MAX_XATTR_TOTAL
from fireflyfs.rpc import meta_pb2 as pb
from meta_service import rows
from meta_service.names import check_xattr_name, check_xattr_value
from meta_service.schema import XattrRow, decode, encode

if TYPE_CHECKING:
    from fireflyfs.kv.base import Transaction
    from meta_service.operation import Context

CREATE = 1
REPLACE = 2
PAGE = 64
"""Attributes read at once: with the largest values still below a transaction's size."""


async def get_xattr(
    tr: Transaction, request: pb.GetXattrRequest, context: Context
) -> pb.XattrReply:
    """Raises FsError: ``NO_ATTRIBUTE`` (also when the inode is gone), bad names."""
    check_xattr_name(request.name)
    value = await tr.get(keys.xattr_key(InodeId(request.inode), request.name))
    if value is None:
        raise _missing(request.inode, request.name)
    return pb.XattrReply(value=decode(XattrRow, value).value)


async def set_xattr(tr: Transaction, request: pb.SetXattrRequest, context: Context) -> pb.Empty:
    """Raises FsError: ``EXISTS`` (CREATE), ``NO_ATTRIBUTE`` (REPLACE), ``TOO_LARGE``, ``NO_SPACE``
    when the names of all attributes would be too long for listxattr(2)."""
    check_xattr_name(request.name)
    check_xattr_value(request.value)
    if request.flags not in (0, CREATE, REPLACE):
        raise FsError(Code.INVALID, f"setxattr with flags {request.flags:#x}")
    inode = InodeId(request.inode)
    row = await rows.get_inode(tr, inode)
    key = keys.xattr_key(inode, request.name)
    present = await tr.get(key) is not None
    if present and request.flags == CREATE:
        raise FsError(Code.EXISTS, f"inode {inode} has {request.name!r} already")
    if not present:
        if request.flags == REPLACE:
            raise _missing(inode, request.name)
        row.xattr_names += len(request.name) + 1
    if row.xattr_names > MAX_XATTR_TOTAL:
        raise FsError(Code.NO_SPACE, f"inode {inode} has {MAX_XATTR_TOTAL} bytes of names")
    tr.set(key, encode(XattrRow(request.value)))
    row.ctime = context.now
    rows.put_inode(tr, inode, row)
    return pb.Empty()


async def remove_xattr(
    tr: Transaction, request: pb.RemoveXattrRequest, context: Context
) -> pb.Empty:
    """Raises FsError: ``NO_ATTRIBUTE``, ``STALE_INODE``."""
    check_xattr_name(request.name)
    inode = InodeId(request.inode)
    row = await rows.get_inode(tr, inode)
    key = keys.xattr_key(inode, request.name)
    if await tr.get(key) is None:
        raise _missing(inode, request.name)
    tr.clear(key)
    row.xattr_names -= len(request.name) + 1
    row.ctime = context.now
    rows.put_inode(tr, inode, row)
    return pb.Empty()


async def list_xattr(
    tr: Transaction, request: pb.ListXattrRequest, context: Context
) -> pb.ListXattrReply:
    """Raises FsError: ``STALE_INODE``."""
    inode = InodeId(request.inode)
    reply = pb.ListXattrReply()
    if not (await rows.get_inode(tr, inode)).xattr_names:
        return reply
    begin, end = keys.xattr_range(inode)
    while found := await tr.get_range(begin, end, limit=PAGE, snapshot=True):
        reply.names.extend(keys.name_of_key(key) for key, _ in found)
        begin = keys.after(found[-1][0])
    return reply


def _missing(inode: int, name: bytes) -> FsError:
    return FsError(Code.NO_ATTRIBUTE, f"inode {inode} has no attribute {name!r}")
