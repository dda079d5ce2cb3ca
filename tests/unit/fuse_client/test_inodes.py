from __future__ import annotations

import os
import stat

import pytest

from fireflyfs.errors import FsError
from fireflyfs.rpc.meta_pb2 import DirEntry, Inode
from fuse_client.handles import Handles, OpenDirectory, OpenFile
from fuse_client.inodes import Inodes, Known

FILE = stat.S_IFREG | 0o644


def inode(change: int, length: int = 0, mtime: int = 0, ctime: int = 0) -> Inode:
    return Inode(id=5, mode=FILE, nlink=1, change=change, length=length, mtime=mtime, ctime=ctime)


def test_writes_show_at_once() -> None:
    known = Known(inode(1, length=10, mtime=100, ctime=100))
    known.wrote(5, 200)
    assert (known.length, known.attributes().st_mtime_ns) == (10, 200)
    known.wrote(15, 150)
    assert (known.length, known.attributes().st_size) == (15, 15)
    assert known.attributes().st_ctime_ns == 200


def test_a_write_during_a_report_stays_to_be_reported() -> None:
    known = Known(inode(1))
    known.wrote(5, 200)
    told = known.unreported
    known.wrote(9, 300)
    known.reported(told, inode(2, length=5, mtime=200))
    assert known.unreported is not None
    assert known.length == 9
    known.reported(known.unreported, inode(3, length=9, mtime=300))
    assert known.unreported is None
    assert known.length == 9


def test_an_old_answer_changes_nothing() -> None:
    known = Known(inode(7, length=70))
    known.learned(inode(6, length=60))
    assert known.length == 70
    known.learned(inode(7, length=71))
    assert known.length == 71


def test_pages_are_kept_while_only_we_change_the_file() -> None:
    known = Known(inode(1))
    assert not known.opened(inode(1))
    assert known.opened(inode(1))
    known.changed_by_us(inode(2))
    assert known.opened(inode(2))
    known.changed_by_us(inode(4))  # 3 was somebody else's
    assert not known.opened(inode(4))


def test_an_inode_is_kept_while_somebody_uses_it() -> None:
    inodes = Inodes()
    known = inodes.looked_up(inode(1), 1)
    inodes.looked_up(inode(1), 1)
    inodes.forget(5, 1)
    assert inodes.get(5) is known
    known.opens = 1
    inodes.forget(5, 1)
    assert inodes.get(5) is known
    known.opens = 0
    known.wrote(1, 1)
    inodes.drop_unused(known)
    assert inodes.get(5) is known
    known.reported(known.unreported, inode(2))
    inodes.drop_unused(known)
    assert inodes.get(5) is None
    inodes.forget(5, 3)


def test_handles() -> None:
    handles: Handles[OpenFile] = Handles()
    file = OpenFile(Known(inode(1)), os.O_RDWR | os.O_DSYNC)
    number = handles.add(file)
    assert handles.get(number) is file
    assert file.synchronous
    assert handles.remove(number) is file
    with pytest.raises(FsError, match=f"handle {number} is not open"):
        handles.remove(number)


def test_a_listing_goes_on_after_any_name() -> None:
    def page(*names: bytes) -> list[DirEntry]:
        return [DirEntry(name=name) for name in names]

    listing = OpenDirectory(1)
    assert listing.ahead(0) == []
    assert listing.resume(0) == b""
    listing.add(page(b"a", b"b"), end=False)
    listing.add(page(b"c", b"d"), end=True)
    assert [e.name for e in listing.ahead(3)] == [b"d"]
    assert listing.ahead(1) == []
    assert not listing.ends_at(3)
    assert listing.ends_at(4)
    assert listing.resume(1) == b"a"
    listing.add(page(b"bb"), end=True)
    assert [e.name for e in listing.ahead(1)] == [b"bb"]
    listing.rewind()
    assert not listing.ends_at(0)
