"""renameat2(2): move, replace, exchange."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError
from fireflyfs.ids import ROOT_INODE, InodeId
from fireflyfs.kv import keys
from fireflyfs.rpc import meta_pb2 as pb
from meta_service import rows
from meta_service.names import check_name

if TYPE_CHECKING:
    from fireflyfs.kv.base import Transaction
    from meta_service.operation import Context
    from meta_service.schema import InodeRow

NOREPLACE = 1
EXCHANGE = 2


@dataclass(slots=True)
class _Named:
    """An inode and one name of it."""

    parent: InodeId
    name: bytes
    inode: InodeId
    row: InodeRow

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.row.mode)


async def rename(tr: Transaction, request: pb.RenameRequest, context: Context) -> pb.RenameReply:
    """Move a name, atomically. Two names of one file: nothing happens, as POSIX has it.

    Raises:
        FsError: ``NOT_FOUND``; ``EXISTS`` (NOREPLACE); ``INVALID`` (flags; a directory into its own
        subtree); ``NOT_EMPTY``, ``IS_DIRECTORY``, ``NOT_DIRECTORY`` (what would be replaced).
    """
    check_name(request.name)
    check_name(request.new_name)
    if request.flags not in (0, NOREPLACE, EXCHANGE):
        raise FsError(Code.INVALID, f"rename with flags {request.flags:#x}")
    new_parent = InodeId(request.new_parent)
    source = await _need(tr, InodeId(request.parent), request.name)
    await rows.get_directory(tr, new_parent)
    target = await _find(tr, new_parent, request.new_name)
    if target is None:
        if request.flags == EXCHANGE:
            raise FsError(Code.NOT_FOUND, f"{request.new_name!r} is not in directory {new_parent}")
    elif request.flags == NOREPLACE:
        raise FsError(Code.EXISTS, f"{request.new_name!r} is in directory {new_parent} already")
    elif target.inode == source.inode:
        return await _reply(tr, source, None)
    await _check_no_loop(tr, source, new_parent)
    if target is not None and request.flags == EXCHANGE:
        return await _exchange(tr, source, target, context.now)
    return await _move(tr, source, new_parent, request.new_name, target, context.now)


async def _move(
    tr: Transaction,
    source: _Named,
    parent: InodeId,
    name: bytes,
    replaced: _Named | None,
    now: int,
) -> pb.RenameReply:
    old_parent = source.parent
    links = _links_gained(source, replaced)
    if replaced is not None:
        await _remove_replaced(tr, source, replaced, now)
    tr.clear(keys.dentry_key(old_parent, source.name))
    _place(tr, source, parent, name, now)
    if old_parent == parent:
        rows.entries_changed(tr, parent, now, links=links - source.is_directory)
    else:
        rows.entries_changed(tr, old_parent, now, links=-int(source.is_directory))
        rows.entries_changed(tr, parent, now, links=links)
    return await _reply(tr, source, replaced)


async def _exchange(tr: Transaction, source: _Named, target: _Named, now: int) -> pb.RenameReply:
    await _check_no_loop(tr, target, source.parent)
    old_parent, old_name = source.parent, source.name
    _place(tr, source, target.parent, target.name, now)
    links = _links_gained(source, target)
    _place(tr, target, old_parent, old_name, now)
    rows.entries_changed(tr, old_parent, now, links=-links if source.parent != old_parent else 0)
    if source.parent != old_parent:
        rows.entries_changed(tr, source.parent, now, links=links)
    return await _reply(tr, source, target)


def _place(tr: Transaction, moved: _Named, parent: InodeId, name: bytes, now: int) -> None:
    """Write the new name of an inode, and its way up if it is a directory."""
    moved.parent, moved.name = parent, name
    rows.put_entry(tr, parent, name, moved.inode, moved.row.mode)
    moved.row.ctime = now
    if moved.is_directory:
        moved.row.parent = parent
    rows.put_inode(tr, moved.inode, moved.row)


def _links_gained(source: _Named, replaced: _Named | None) -> int:
    """What the links of the directory that receives ``source`` grow by."""
    return int(source.is_directory) - int(replaced is not None and replaced.is_directory)


async def _remove_replaced(tr: Transaction, source: _Named, replaced: _Named, now: int) -> None:
    if not replaced.is_directory:
        if source.is_directory:
            raise FsError(Code.NOT_DIRECTORY, f"{replaced.name!r} is not a directory")
        return await rows.drop_link(tr, replaced.inode, replaced.row, now)
    if not source.is_directory:
        raise FsError(Code.IS_DIRECTORY, f"{replaced.name!r} is a directory")
    await rows.check_empty(tr, replaced.inode)
    return rows.forget_inode(tr, replaced.inode, replaced.row, now)


async def _check_no_loop(tr: Transaction, moved: _Named, parent: InodeId) -> None:
    """A directory must not become its own ancestor: walk up from where it goes.

    Reads the inode row of every directory on the way, and a moved directory's row is written: two
    renames that would make a loop together conflict.
    """
    if not moved.is_directory or parent == moved.parent:
        return
    above = parent
    while above != ROOT_INODE:
        if above == moved.inode:
            raise FsError(Code.INVALID, f"{moved.name!r} cannot move into its own subtree")
        above = InodeId((await rows.get_directory(tr, above)).parent)


async def _need(tr: Transaction, parent: InodeId, name: bytes) -> _Named:
    entry = await rows.need_entry(tr, parent, name)
    inode = InodeId(entry.inode)
    return _Named(parent, name, inode, await rows.get_inode(tr, inode))


async def _find(tr: Transaction, parent: InodeId, name: bytes) -> _Named | None:
    entry = await rows.get_entry(tr, parent, name)
    if entry is None:
        return None
    inode = InodeId(entry.inode)
    return _Named(parent, name, inode, await rows.get_inode(tr, inode))


async def _reply(tr: Transaction, moved: _Named, replaced: _Named | None) -> pb.RenameReply:
    """``replaced`` as it is now: exchanged (with its new name), or removed."""
    reply = pb.RenameReply(inode=await rows.attributes(tr, moved.inode, moved.row))
    if replaced is not None:
        reply.replaced.CopyFrom(await rows.attributes(tr, replaced.inode, replaced.row))
    return reply
