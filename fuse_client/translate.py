"""Between the system's words and the kernel's: attributes, errors, statistics. Pure."""

from __future__ import annotations

import functools
import logging
import stat
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from pyfuse3 import EntryAttributes, FUSEError, StatvfsData

from fireflyfs import limits
from fireflyfs.errors import Code, FsError
from fireflyfs.rpc.meta_pb2 import Caller, SetAttrRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from pyfuse3 import RequestContext, SetattrFields

    from fireflyfs.rpc.meta_pb2 import Inode, StatFsReply

logger = logging.getLogger(__name__)

CACHE_SECONDS = 1.0
"""For how long the kernel may answer names and attributes itself. Names that are not there are not
remembered at all."""
IO_SIZE = 256 * limits.KIB
"""st_blksize: what programs use as their buffer. Each write is a round trip along a chain."""
BLOCK = 512
"""Unit of st_blocks (stat(2))."""
STATFS_BLOCK = 4 * limits.KIB

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


def attributes(inode: Inode, length: int, mtime: int, ctime: int) -> EntryAttributes:
    """What stat(2) shows of an inode; ``length`` and times as this mount knows them (bytes, ns).

    st_blocks counts holes as if they were written: nobody counts chunks for a stat.
    """
    entry = EntryAttributes()
    entry.st_ino = inode.id
    entry.st_mode = inode.mode
    entry.st_nlink = inode.nlink
    entry.st_uid = inode.uid
    entry.st_gid = inode.gid
    entry.st_rdev = inode.rdev
    entry.st_size = len(inode.target) if stat.S_ISLNK(inode.mode) else length
    entry.st_blksize = IO_SIZE
    entry.st_blocks = -(-length // BLOCK) if stat.S_ISREG(inode.mode) else 0
    entry.st_atime_ns = inode.atime
    entry.st_mtime_ns = mtime
    entry.st_ctime_ns = ctime
    entry.attr_timeout = entry.entry_timeout = CACHE_SECONDS
    return entry


def statistics(reply: StatFsReply) -> StatvfsData:
    """What statvfs(2) shows."""
    data = StatvfsData()
    data.f_bsize = data.f_frsize = STATFS_BLOCK
    data.f_blocks = reply.capacity // STATFS_BLOCK
    data.f_bfree = data.f_bavail = reply.available // STATFS_BLOCK
    data.f_files = reply.inodes + data.f_bfree
    data.f_ffree = data.f_favail = data.f_bfree
    data.f_namemax = limits.MAX_NAME
    return data


def caller(context: RequestContext) -> Caller:
    return Caller(uid=context.uid, gid=context.gid)


def check_attribute(name: bytes) -> None:
    """Extended attributes are those of user, trusted and security; the system's own (POSIX ACLs)
    are not kept here. Raises FsError(NOT_SUPPORTED)."""
    if not name.startswith((b"user.", b"trusted.", b"security.")):
        raise FsError(Code.NOT_SUPPORTED, f"no extended attribute {name!r} here")


def changes(inode: int, wanted: EntryAttributes, fields: SetattrFields, now: int) -> SetAttrRequest:
    """The request for what the kernel wants changed. A new size is a modification (``now``, ns)."""
    request = SetAttrRequest(inode=inode)
    if fields.update_mode:
        request.mode = wanted.st_mode
    if fields.update_uid:
        request.uid = wanted.st_uid
    if fields.update_gid:
        request.gid = wanted.st_gid
    if fields.update_atime:
        request.atime = storable(wanted.st_atime_ns)
    if fields.update_mtime:
        request.mtime = storable(wanted.st_mtime_ns)
    elif fields.update_size:
        request.mtime = now
    if fields.update_size:
        request.length = wanted.st_size
    return request


def storable(nanoseconds: int) -> int:
    """Times that 64 bits of nanoseconds cannot hold (beyond 1677 to 2262) become the nearest that
    they can, as on other file systems of limited range."""
    return max(-(1 << 63), min(nanoseconds, (1 << 63) - 1))


def answers(
    verb: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Makes a verb raise nothing but FUSEError: anything else would end the mount.

    Causes of I/O errors are logged: the program only sees an errno.
    """

    @functools.wraps(verb)
    async def answering(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await verb(self, *args, **kwargs)
        except FUSEError:
            raise
        except FsError as error:
            if error.retry or error.code is Code.INTERNAL:
                logger.error("%s failed: %s", verb.__name__, error)
            raise FUSEError(error.errno) from error
        except Exception as error:
            logger.exception("%s met a defect", verb.__name__)
            raise FUSEError(Code.INTERNAL.errno) from error

    return answering
