"""readdir with attributes: pages from the metadata server, entries to the kernel as it has room."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pyfuse3

from fireflyfs.rpc.meta_pb2 import Inode, ReadDirRequest
from fireflyfs.rpc.methods import MetaRpc
from fuse_client import translate

if TYPE_CHECKING:
    from fireflyfs.client.meta import MetaClient
    from fireflyfs.rpc.meta_pb2 import DirEntry
    from fuse_client.handles import OpenDirectory
    from fuse_client.inodes import Inodes

PAGE = 512
"""Entries fetched at once."""
DOTS = (b".", b"..")


async def list_directory(
    meta: MetaClient,
    inodes: Inodes,
    directory: OpenDirectory,
    start: int,
    token: pyfuse3.ReaddirToken,
) -> None:
    """Give the kernel entries from position ``start`` on, until it has no more room for any.

    Positions 0 and 1 are "." and "..", the others follow ``OpenDirectory``; position 0 begins anew.
    Raises FsError: ``STALE_INODE`` and what ``MetaClient.call`` raises.
    """
    if start == 0:
        directory.rewind()
    for position in range(start, len(DOTS)):
        number = directory.inode if position == 0 else _parent(inodes, directory.inode)
        if not pyfuse3.readdir_reply(token, DOTS[position], _dot(number), position + 1):
            return
    position = max(0, start - len(DOTS))
    while entries := await _entries(meta, directory, position):
        for entry in entries:
            position += 1
            # Before the reply, so that what it shows includes what this mount has written.
            attributes = inodes.known(entry.inode).attributes()
            if not pyfuse3.readdir_reply(token, entry.name, attributes, position + len(DOTS)):
                inodes.forget(entry.inode.id, 0)
                return
            inodes.looked_up(entry.inode, directory.inode)


async def _entries(meta: MetaClient, directory: OpenDirectory, position: int) -> list[DirEntry]:
    """At least one entry from ``position`` on; none at the end."""
    while not (entries := directory.ahead(position)) and not directory.ends_at(position):
        after = directory.resume(position)
        request = ReadDirRequest(inode=directory.inode, after=after, limit=PAGE)
        reply = await meta.call(MetaRpc.READ_DIR, request)
        directory.add(list(reply.entries), reply.end)
    return entries


def _parent(inodes: Inodes, inode: int) -> int:
    known = inodes.get(inode)
    return known.parent if known is not None and known.parent else inode


def _dot(number: int) -> pyfuse3.EntryAttributes:
    """The kernel takes only number and type of "." and ".."."""
    return translate.attributes(Inode(id=number, mode=stat.S_IFDIR), 0, 0, 0)
