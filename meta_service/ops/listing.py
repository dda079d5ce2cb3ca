"""Directories in pages, with the attributes of every entry."""

from __future__ import annotations

import logging
import stat
from typing import TYPE_CHECKING

import trio

from fireflyfs.errors import Code, FsError
from fireflyfs.ids import InodeId
from fireflyfs.kv import keys
from fireflyfs.limits import MAX_LISTING_PAGE, MAX_NAME, MIB
from fireflyfs.rpc import meta_pb2 as pb
from meta_service import rows
from meta_service.schema import DentryRow, InodeRow, decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fireflyfs.kv.base import Transaction
    from meta_service.operation import Context

logger = logging.getLogger(__name__)

DEFAULT_PAGE = 1024
PAGE_BYTES = MIB
"""A page ends near here, whatever its limit: gRPC refuses messages over 4 MiB."""
BATCH = 128
"""Inodes read at once."""
ENTRY_BYTES = 160
"""About what an entry takes besides its name and its link target."""


async def read_dir(
    tr: Transaction, request: pb.ReadDirRequest, context: Context
) -> pb.ReadDirReply:
    """Entries behind ``after`` in byte order, of one snapshot. ``limit`` 0 leaves it to the server.

    Raises:
        FsError: ``NOT_DIRECTORY``, ``STALE_INODE``, ``NAME_TOO_LONG`` (``after``).
    """
    if len(request.after) > MAX_NAME:
        raise FsError(Code.NAME_TOO_LONG, f"a name of {len(request.after)} bytes to go on from")
    directory = InodeId(request.inode)
    limit = min(request.limit or DEFAULT_PAGE, MAX_LISTING_PAGE)
    await rows.get_directory(tr, directory)
    found = await tr.get_range(
        *keys.dentry_range(directory, request.after), limit=limit, snapshot=True
    )
    reply = pb.ReadDirReply(end=len(found) < limit)
    size = 0
    for start in range(0, len(found), BATCH):
        if size > PAGE_BYTES:
            reply.end = False
            break
        size += await _add_entries(tr, directory, found[start : start + BATCH], reply)
        await trio.lowlevel.checkpoint()  # others want answers meanwhile
    return reply


async def _add_entries(
    tr: Transaction, directory: InodeId, found: list[tuple[bytes, bytes]], reply: pb.ReadDirReply
) -> int:
    """About how many bytes were added."""
    entries = [decode(DentryRow, value) for _, value in found]
    inodes = await _attributes_of(tr, entries)
    size = 0
    for (key, _), entry, inode in zip(found, entries, inodes, strict=True):
        name = keys.name_of_key(key)
        if inode is None:
            logger.error("%r in directory %d has no inode %d", name, directory, entry.inode)
            continue
        reply.entries.append(pb.DirEntry(name=name, inode=inode))
        size += ENTRY_BYTES + len(name) + len(inode.target)
    return size


async def _attributes_of(tr: Transaction, entries: Sequence[DentryRow]) -> list[pb.Inode | None]:
    """The attributes of each entry's inode; None where the inode is missing."""
    inodes = [InodeId(entry.inode) for entry in entries]
    found = await tr.get_many([keys.inode_key(inode) for inode in inodes], snapshot=True)
    directories = [i for i, entry in enumerate(entries) if stat.S_ISDIR(entry.type)]
    wanted = [key for i in directories for key in rows.attribute_keys(inodes[i])]
    shared = await tr.get_many(wanted, snapshot=True) if wanted else []
    step = len(shared) // len(directories) if directories else 0
    values = {i: shared[n * step : (n + 1) * step] for n, i in enumerate(directories)}
    replies: list[pb.Inode | None] = []
    for i, value in enumerate(found):
        if value is None:
            replies.append(None)
        elif i in values:
            row = decode(InodeRow, value)
            replies.append(rows.attributes_of_directory(inodes[i], row, values[i]))
        else:
            replies.append(rows.attributes_of_file(inodes[i], decode(InodeRow, value)))
    return replies
