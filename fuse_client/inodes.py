"""What this mount knows of inodes: attributes, what it wrote and did not report yet, who uses them.

No I/O here, no clock: values in, values out.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from fireflyfs.errors import Code, FsError
from fireflyfs.ids import ROOT_INODE, ChainId, InodeId
from fireflyfs.layout import Layout
from fuse_client import translate
from fuse_client.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyfuse3 import EntryAttributes

    from fireflyfs.client.file import FileIO
    from fireflyfs.rpc.meta_pb2 import Inode


@dataclass(frozen=True, slots=True)
class Written:
    """Writes that the metadata server has not heard of: the file reaches to ``length`` (bytes) at
    least and was modified at ``mtime`` (ns)."""

    length: int
    mtime: int


@dataclass(slots=True, eq=False)
class Known:
    """One inode. The kernel's look-ups or an open file keep it in the table."""

    inode: Inode
    """As the metadata server last answered it."""
    lookups: int = 0
    opens: int = 0
    """Open files of this mount; the session on the server lives while it is not 0."""
    is_gone: bool = False
    """Removed although it is open here: nobody heard this mount for too long."""
    unreported: Written | None = None
    cached: int | None = None
    """``change`` of the inode when the kernel's pages of it were last known to be right."""
    parent: int = 0
    """Directories: where it was last seen; 0 when unknown."""
    plain_until: float = 0.0
    """Until this time (trio's clock) it is known to have no file capabilities."""
    io: FileIO | None = None
    reporting: trio.Lock = field(default_factory=trio.Lock)
    """Held by who tells the server of lengths and times, in the order in which they happened."""
    writes: Gate = field(default_factory=Gate)
    """Shut by who cuts the file. The kernel keeps writes and truncate(2) apart, but not writes and
    an open with O_TRUNC: bytes that came between the cut and the new length would show again when
    the file grows."""
    session: trio.Lock = field(default_factory=trio.Lock)
    """Held by who opens and closes the session."""

    @property
    def id(self) -> InodeId:
        return InodeId(self.inode.id)

    @property
    def length(self) -> int:
        """Bytes, with what this mount wrote."""
        written = self.unreported
        return max(self.inode.length, written.length) if written else self.inode.length

    def layout(self) -> Layout:
        """Raises FsError(INVALID) for what has no bytes."""
        if not stat.S_ISREG(self.inode.mode):
            raise FsError(Code.INVALID, f"inode {self.id} is not a regular file")
        layout = self.inode.layout
        return Layout(layout.chunk_size, tuple(ChainId(chain) for chain in layout.chains))

    def attributes(self) -> EntryAttributes:
        inode, written = self.inode, self.unreported
        if written is None:
            return translate.attributes(inode, inode.length, inode.mtime, inode.ctime)
        mtime = max(inode.mtime, written.mtime)
        return translate.attributes(inode, self.length, mtime, max(inode.ctime, written.mtime))

    def learned(self, inode: Inode) -> None:
        """Take attributes from an answer, unless a newer one was here first."""
        if inode.change >= self.inode.change:
            self.inode = inode

    def changed_by_us(self, inode: Inode) -> None:
        """Take attributes from the answer to a change of our own. The kernel's pages stay right if
        nobody else changed the inode in between."""
        if self.cached is not None and inode.change == self.cached + 1:
            self.cached = inode.change
        self.learned(inode)

    def opened(self, inode: Inode) -> bool:
        """Take attributes from the answer to an open; says whether the kernel's pages are still
        right (close-to-open: nobody changed the inode since)."""
        keep = self.cached == inode.change
        self.cached = inode.change
        self.learned(inode)
        return keep

    def wrote(self, end: int, now: int) -> None:
        """Bytes up to ``end`` are on the replicas, at ``now`` (ns)."""
        before = self.unreported
        length = max(before.length, end) if before else end
        self.unreported = Written(length, max(before.mtime, now) if before else now)

    def reported(self, told: Written | None, inode: Inode) -> None:
        """The server heard of ``told``; writes since then are still to be told."""
        if self.unreported is told:
            self.unreported = None
        self.changed_by_us(inode)

    def truncated(self, inode: Inode) -> None:
        """The server set the length exactly; what was written before is part of that."""
        self.unreported = None
        self.changed_by_us(inode)


class Inodes:
    """The table, by inode id."""

    def __init__(self) -> None:
        self._table: dict[int, Known] = {}

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Known]:
        return iter(list(self._table.values()))

    def get(self, inode: int) -> Known | None:
        return self._table.get(inode)

    def known(self, inode: Inode) -> Known:
        """The entry of an inode that the server answered; made if it is new."""
        known = self._table.get(inode.id)
        if known is None:
            known = self._table[inode.id] = Known(inode)
        else:
            known.learned(inode)
        return known

    def looked_up(self, inode: Inode, parent: int) -> Known:
        """As ``known``, for an answer that the kernel counts as a look-up below ``parent``."""
        known = self.known(inode)
        known.lookups += 1
        if stat.S_ISDIR(inode.mode):
            known.parent = parent
        return known

    def forget(self, inode: int, count: int) -> None:
        """The kernel gave up ``count`` look-ups."""
        known = self._table.get(inode)
        if known is not None:
            known.lookups = max(0, known.lookups - count)
            self.drop_unused(known)

    def drop_unused(self, known: Known) -> None:
        """A close on its way is a use: who opens the file meanwhile must find what to wait for."""
        used = known.lookups or known.opens or known.unreported or known.session.locked()
        if not used and known.id != ROOT_INODE and self._table.get(known.id) is known:
            del self._table[known.id]
