"""New files, nodes and symbolic links."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError
from fireflyfs.ids import ClientId, InodeId
from fireflyfs.rpc import meta_pb2 as pb
from meta_service import rows
from meta_service.names import (
    DEVICE_TYPES,
    PERMISSION_BITS,
    check_client,
    check_name,
    check_target,
    node_mode,
)
from meta_service.ops.session import open_session
from meta_service.schema import InodeRow

if TYPE_CHECKING:
    from fireflyfs.kv.base import Transaction
    from meta_service.operation import Context


async def create(tr: Transaction, request: pb.CreateRequest, context: Context) -> pb.InodeReply:
    """Make and open a regular file, or open the one that has the name.

    Raises:
        FsError: ``EXISTS`` (exclusive), ``IS_DIRECTORY``; ``LOOP`` when the name is a symbolic
            link, which only its reader can follow; ``NOT_DIRECTORY``, ``STALE_INODE`` (parent).
    """
    check_name(request.name)
    check_client(request.caller.client_id)
    parent = InodeId(request.parent)
    entry = await rows.get_entry(tr, parent, request.name)
    if entry is not None:
        if request.exclusive:
            raise _exists(parent, request.name)
        return await _open_existing(tr, InodeId(entry.inode), request, context)
    directory = await rows.get_directory(tr, parent)
    row = new_row(directory, request.caller, stat.S_IFREG | request.mode & PERMISSION_BITS, context)
    open_session(tr, context.new_inode, ClientId(request.caller.client_id), context.now, write=True)
    return _add(tr, parent, request.name, row, context)


async def mknod(tr: Transaction, request: pb.MknodRequest, context: Context) -> pb.InodeReply:
    """Raises FsError: ``EXISTS``, ``NOT_PERMITTED`` (a directory), ``INVALID`` (another type)."""
    check_name(request.name)
    mode = node_mode(request.mode)
    directory = await _free_name(tr, request.parent, request.name)
    row = new_row(directory, request.caller, mode, context)
    if stat.S_IFMT(mode) in DEVICE_TYPES:
        row.rdev = request.rdev
    return _add(tr, InodeId(request.parent), request.name, row, context)


async def symlink(tr: Transaction, request: pb.SymlinkRequest, context: Context) -> pb.InodeReply:
    """Raises FsError: ``EXISTS``; ``NOT_FOUND`` for an empty target."""
    check_name(request.name)
    check_target(request.target)
    directory = await _free_name(tr, request.parent, request.name)
    row = new_row(directory, request.caller, stat.S_IFLNK | 0o777, context)
    row.target = request.target
    return _add(tr, InodeId(request.parent), request.name, row, context)


def new_row(directory: InodeRow, caller: pb.Caller, mode: int, context: Context) -> InodeRow:
    """A new inode in ``directory``: a setgid directory gives its group instead of the caller's."""
    row = InodeRow(
        mode=mode,
        uid=caller.uid,
        gid=directory.gid if directory.mode & stat.S_ISGID else caller.gid,
        nlink=1,
        atime=context.now,
        mtime=context.now,
        ctime=context.now,
    )
    if stat.S_ISREG(mode):
        layout = context.layout_for(context.new_inode)
        row.chunk_size, row.chains = layout.chunk_size, layout.chains
    return row


def _add(
    tr: Transaction, parent: InodeId, name: bytes, row: InodeRow, context: Context
) -> pb.InodeReply:
    inode = context.new_inode
    rows.add_inode(tr, inode, row)
    rows.put_entry(tr, parent, name, inode, row.mode)
    rows.entries_changed(tr, parent, context.now)
    return pb.InodeReply(inode=rows.attributes_of_file(inode, row), created=True)


async def _free_name(tr: Transaction, parent: int, name: bytes) -> InodeRow:
    """The directory ``parent``, in which nothing has this name."""
    directory = await rows.get_directory(tr, InodeId(parent))
    if await rows.get_entry(tr, InodeId(parent), name) is not None:
        raise _exists(parent, name)
    return directory


async def _open_existing(
    tr: Transaction, inode: InodeId, request: pb.CreateRequest, context: Context
) -> pb.InodeReply:
    row = await rows.get_inode(tr, inode)
    if stat.S_ISDIR(row.mode):
        raise FsError(Code.IS_DIRECTORY, f"{request.name!r} is a directory")
    if stat.S_ISLNK(row.mode):
        raise FsError(Code.LOOP, f"{request.name!r} is a symbolic link")
    if stat.S_ISREG(row.mode):
        open_session(tr, inode, ClientId(request.caller.client_id), context.now, write=True)
    return pb.InodeReply(inode=rows.attributes_of_file(inode, row))


def _exists(parent: int, name: bytes) -> FsError:
    return FsError(Code.EXISTS, f"{name!r} is in directory {parent} already")
