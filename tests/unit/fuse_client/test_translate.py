from __future__ import annotations

import errno
import stat
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pyfuse3
import pytest

from fireflyfs.errors import Code, FsError
from fireflyfs.rpc.meta_pb2 import Inode, StatFsReply
from fuse_client import translate

if TYPE_CHECKING:
    from pyfuse3 import SetattrFields


def test_attributes_of_a_file() -> None:
    inode = Inode(id=7, mode=stat.S_IFREG | 0o640, nlink=2, uid=3, gid=4, atime=-5, length=9)
    entry = translate.attributes(inode, 1025, 2_000_000_001, 3)
    assert (entry.st_ino, entry.st_mode, entry.st_nlink) == (7, stat.S_IFREG | 0o640, 2)
    assert (entry.st_uid, entry.st_gid) == (3, 4)
    assert (entry.st_size, entry.st_blocks) == (1025, 3)
    assert (entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns) == (-5, 2_000_000_001, 3)


def test_the_size_of_a_symlink_is_its_target() -> None:
    inode = Inode(id=7, mode=stat.S_IFLNK | 0o777, target=b"over there")
    assert translate.attributes(inode, 0, 0, 0).st_size == 10


def test_statistics_count_blocks() -> None:
    data = translate.statistics(StatFsReply(capacity=1 << 30, available=1 << 20, inodes=5))
    assert data.f_blocks * data.f_frsize == 1 << 30
    assert data.f_bavail * data.f_frsize == 1 << 20
    assert data.f_files - data.f_ffree == 5
    assert data.f_namemax == 255


def wanted(**updates: bool) -> SetattrFields:
    names = ("mode", "uid", "gid", "size", "atime", "mtime", "ctime")
    fields = {f"update_{name}": updates.get(name, False) for name in names}
    return cast("SetattrFields", SimpleNamespace(**fields))


def test_only_what_is_wanted_is_asked_for() -> None:
    entry = pyfuse3.EntryAttributes()
    entry.st_mode, entry.st_uid, entry.st_size = 0o600, 8, 100
    entry.st_mtime_ns = 5
    request = translate.changes(3, entry, wanted(mode=True), now=9)
    assert [field.name for field, _ in request.ListFields()] == ["inode", "mode"]
    request = translate.changes(3, entry, wanted(uid=True, gid=True, mtime=True), now=9)
    assert (request.uid, request.gid, request.mtime) == (8, 0, 5)
    assert not request.HasField("length")


def test_a_new_size_is_a_modification() -> None:
    entry = pyfuse3.EntryAttributes()
    request = translate.changes(3, entry, wanted(size=True), now=9)
    assert request.HasField("length")
    assert (request.length, request.mtime) == (0, 9)


@pytest.mark.parametrize("name", [b"system.posix_acl_access", b"user", b"", b"other.x"])
def test_foreign_attributes_are_refused(name: bytes) -> None:
    with pytest.raises(FsError) as caught:
        translate.check_attribute(name)
    assert caught.value.errno == errno.EOPNOTSUPP


class Verbs:
    @translate.answers
    async def verb(self, error: Exception | None) -> int:
        if error is not None:
            raise error
        return 5


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (FsError(Code.NOT_EMPTY, "full"), errno.ENOTEMPTY),
        (FsError(Code.CHAIN_UNAVAILABLE, "down"), errno.EIO),
        (pyfuse3.FUSEError(errno.ENOENT), errno.ENOENT),
        (ZeroDivisionError(), errno.EIO),
    ],
)
async def test_every_error_has_a_number(error: Exception, number: int) -> None:
    assert await Verbs().verb(None) == 5
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await Verbs().verb(error)
    assert caught.value.errno == number
