"""File and directory handles: the numbers that the kernel gives back with each request."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from fireflyfs.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fireflyfs.rpc.meta_pb2 import DirEntry
    from fuse_client.inodes import Known


@dataclass(slots=True, eq=False)
class OpenFile:
    known: Known
    flags: int
    """As open(2) got them."""

    @property
    def synchronous(self) -> bool:
        """Writes return only when the media have them (O_SYNC, O_DSYNC)."""
        return bool(self.flags & (os.O_SYNC | os.O_DSYNC))


@dataclass(slots=True, eq=False)
class OpenDirectory:
    """A listing in progress. The position before entry ``i`` is the number ``i``. Names are kept:
    it can go on after any of them, whatever was added or removed meanwhile."""

    inode: int
    names: list[bytes] = field(default_factory=list)
    """Of all entries fetched so far, in order."""
    page: list[DirEntry] = field(default_factory=list)
    """The entries last fetched, with attributes: the last ones of ``names``."""
    complete: bool = False
    """No names come after ``names``."""

    def rewind(self) -> None:
        self.names.clear()
        self.page.clear()
        self.complete = False

    def ahead(self, position: int) -> list[DirEntry]:
        """Entries on hand from ``position`` on."""
        start = len(self.names) - len(self.page)
        return self.page[position - start :] if position >= start else []

    def ends_at(self, position: int) -> bool:
        return self.complete and position >= len(self.names)

    def resume(self, position: int) -> bytes:
        """Forget what was fetched beyond ``position``; the name to go on after."""
        del self.names[position:]
        self.page = []
        self.complete = False
        return self.names[-1] if self.names else b""

    def add(self, page: list[DirEntry], end: bool) -> None:
        self.names.extend(entry.name for entry in page)
        self.page = page
        self.complete = end


H = TypeVar("H")


class Handles(Generic[H]):
    def __init__(self) -> None:
        self._table: dict[int, H] = {}
        self._numbers = itertools.count(1)

    def add(self, handle: H) -> int:
        number = next(self._numbers)
        self._table[number] = handle
        return number

    def get(self, number: int) -> H:
        """Raises FsError(BAD_HANDLE)."""
        try:
            return self._table[number]
        except KeyError:
            raise FsError(Code.BAD_HANDLE, f"handle {number} is not open") from None

    def remove(self, number: int) -> H:
        """Raises FsError(BAD_HANDLE)."""
        handle = self.get(number)
        del self._table[number]
        return handle

    def __iter__(self) -> Iterator[H]:
        return iter(list(self._table.values()))
