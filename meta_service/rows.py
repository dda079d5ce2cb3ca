"""The rows behind inodes, names and directories: the vocabulary that the operations are written in.

What many writers of one directory share lies on keys of its own that are written unread (``L``
links, ``V`` changes, ``T`` times), so creates in one directory do not conflict with each other; a
reader combines them. What must exclude each other meets on a read: whoever adds a name reads the
directory's inode row, whoever removes the directory clears that row and reads its entries.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from fireflyfs.errors import Code, FsError
from fireflyfs.kv import keys
from fireflyfs.kv.atomic import pack_signed, unpack_signed
from fireflyfs.rpc import meta_pb2 as pb
from meta_service.schema import (
    DentryRow,
    GarbageRow,
    InodeRow,
    OrphanRow,
    TimesRow,
    decode,
    encode,
)

if TYPE_CHECKING:
    from fireflyfs.ids import InodeId
    from fireflyfs.kv.base import Transaction

DIRECTORY_LENGTH = 4096
"""What st_size of a directory says, however many entries it has, as on most file systems."""
EMPTY_LINKS = 2
COUNT_SHARDS = 16
"""Keys that the number of inodes is spread over: one would be hot under every create."""


def count_key(inode: int) -> bytes:
    return keys.counter_key(f"inodes {inode % COUNT_SHARDS:02}")


# Inodes


async def get_inode(tr: Transaction, inode: InodeId, *, snapshot: bool = False) -> InodeRow:
    """Raises FsError: ``STALE_INODE`` when there is none (any more)."""
    value = await tr.get(keys.inode_key(inode), snapshot=snapshot)
    if value is None:
        raise FsError(Code.STALE_INODE, f"inode {inode} does not exist")
    return decode(InodeRow, value)


async def get_directory(tr: Transaction, inode: InodeId) -> InodeRow:
    """Raises FsError: ``STALE_INODE``, ``NOT_DIRECTORY``."""
    row = await get_inode(tr, inode)
    if not stat.S_ISDIR(row.mode):
        raise FsError(Code.NOT_DIRECTORY, f"inode {inode} is not a directory")
    return row


def put_inode(tr: Transaction, inode: InodeId, row: InodeRow) -> None:
    """Store a changed row."""
    row.change += 1
    tr.set(keys.inode_key(inode), encode(row))


def add_inode(tr: Transaction, inode: InodeId, row: InodeRow) -> None:
    """Store a new inode. A directory begins without entries."""
    tr.set(keys.inode_key(inode), encode(row))
    tr.add(count_key(inode), 1)
    if stat.S_ISDIR(row.mode):
        tr.set(keys.dir_links_key(inode), pack_signed(EMPTY_LINKS))
        set_times(tr, inode, row.mtime, row.ctime)


def forget_inode(tr: Transaction, inode: InodeId, row: InodeRow, now: int) -> None:
    """Clear everything that an inode without names and sessions has; its chunks become garbage."""
    tr.clear(keys.inode_key(inode))
    tr.add(count_key(inode), -1)
    if row.xattr_names:
        tr.clear_range(*keys.xattr_range(inode))
    if stat.S_ISDIR(row.mode):
        tr.clear(keys.dir_links_key(inode))
        tr.clear(keys.dir_changes_key(inode))
        tr.clear(keys.dir_times_key(inode))
    if stat.S_ISREG(row.mode) and row.peak:
        used = row.chains[: -(-row.peak // row.chunk_size)]
        tr.set(keys.garbage_key(inode), encode(GarbageRow(now, row.chunk_size, used)))


async def drop_link(tr: Transaction, inode: InodeId, row: InodeRow, now: int) -> None:
    """Take one name off a file; with the last one it goes, or waits for its sessions to close."""
    row.nlink -= 1
    row.ctime = now
    if row.nlink:
        put_inode(tr, inode, row)
    elif await is_open(tr, inode):
        put_inode(tr, inode, row)
        tr.set(keys.orphan_key(inode), encode(OrphanRow(now)))
    else:
        row.change += 1
        forget_inode(tr, inode, row, now)


async def is_open(tr: Transaction, inode: InodeId) -> bool:
    return bool(await tr.get_range(*keys.session_range(inode), limit=1))


# Names


async def get_entry(tr: Transaction, parent: InodeId, name: bytes) -> DentryRow | None:
    value = await tr.get(keys.dentry_key(parent, name))
    return None if value is None else decode(DentryRow, value)


async def need_entry(tr: Transaction, parent: InodeId, name: bytes) -> DentryRow:
    """Raises FsError: ``NOT_FOUND``; ``STALE_INODE`` or ``NOT_DIRECTORY`` for the parent."""
    entry = await get_entry(tr, parent, name)
    if entry is None:
        await get_directory(tr, parent)
        raise FsError(Code.NOT_FOUND, f"{name!r} is not in directory {parent}")
    return entry


def put_entry(tr: Transaction, parent: InodeId, name: bytes, inode: InodeId, mode: int) -> None:
    tr.set(keys.dentry_key(parent, name), encode(DentryRow(inode, stat.S_IFMT(mode))))


async def check_empty(tr: Transaction, inode: InodeId) -> None:
    """Raises FsError: ``NOT_EMPTY``. Conflicts with every entry that is added meanwhile."""
    if await tr.get_range(*keys.dentry_range(inode), limit=1):
        raise FsError(Code.NOT_EMPTY, f"directory {inode} is not empty")


# Directories


def entries_changed(tr: Transaction, directory: InodeId, now: int, *, links: int = 0) -> None:
    """Entries came or went, ``links`` of them subdirectories. Reads nothing: no conflicts."""
    set_times(tr, directory, now, now)
    tr.add(keys.dir_changes_key(directory), 1)
    if links:
        tr.add(keys.dir_links_key(directory), links)


def set_times(tr: Transaction, directory: InodeId, mtime: int, ctime: int) -> None:
    tr.set(keys.dir_times_key(directory), encode(TimesRow(mtime, ctime)))


def attribute_keys(inode: InodeId) -> list[bytes]:
    """What a directory's attributes are on, besides its inode row."""
    return [keys.dir_links_key(inode), keys.dir_changes_key(inode), keys.dir_times_key(inode)]


async def attributes(tr: Transaction, inode: InodeId, row: InodeRow) -> pb.Inode:
    """The inode as clients see it."""
    if not stat.S_ISDIR(row.mode):
        return attributes_of_file(inode, row)
    values = [await tr.get(key, snapshot=True) for key in attribute_keys(inode)]
    return attributes_of_directory(inode, row, values)


def attributes_of_directory(inode: InodeId, row: InodeRow, values: list[bytes | None]) -> pb.Inode:
    """``values``: what ``attribute_keys`` are set to."""
    links, changes, times = values
    changed = TimesRow(row.mtime, row.ctime) if times is None else decode(TimesRow, times)
    return pb.Inode(
        id=inode,
        mode=row.mode,
        nlink=unpack_signed(links),
        uid=row.uid,
        gid=row.gid,
        length=DIRECTORY_LENGTH,
        atime=row.atime,
        mtime=changed.mtime,
        ctime=max(row.ctime, changed.ctime),
        change=row.change + unpack_signed(changes),
    )


def attributes_of_file(inode: InodeId, row: InodeRow) -> pb.Inode:
    reply = pb.Inode(
        id=inode,
        mode=row.mode,
        nlink=row.nlink,
        uid=row.uid,
        gid=row.gid,
        rdev=row.rdev,
        length=len(row.target) or row.length,
        atime=row.atime,
        mtime=row.mtime,
        ctime=row.ctime,
        target=row.target,
        change=row.change,
    )
    if row.chunk_size:
        reply.layout.chunk_size = row.chunk_size
        reply.layout.chains.extend(row.chains)
    return reply
