"""How an update becomes a new content, in the cheapest way that leaves the old one intact.

1. *In place*: bytes behind everything that any reader or any recovery may ask of the block. An
   append writes what it appends and nothing else.
2. *Redo*: a small change of bytes in use. The bytes go into the metadata, beside the record, and
   are laid over the block when it is read, until they are written in place (``epochs.py`` says
   when): a small overwrite costs what it writes.
3. *Copy on write*: everything else goes into a fresh block of fitting size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fireflyfs.checksum import crc32c
from fireflyfs.limits import KIB, MIB, SUB_BLOCK
from storage_service.store.allocator import class_for
from storage_service.store.contents import fetch
from storage_service.store.record import EMPTY, Block, Content, Redo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage_service.store.blocks import BlockFiles
    from storage_service.store.space import Space

MAX_REDO = 32 * KIB
"""Bytes: larger changes are written once, into a new block, rather than twice."""
MAX_REDOS = 256
"""Of one block: every read looks through them."""
MAX_REDO_BYTES = 64 * MIB
"""Held in memory by one store, at most."""


@dataclass(slots=True)
class Draft:
    """A content that no record refers to yet."""

    content: Content
    taken: Block | None = None
    redo: Redo | None = None
    changed: tuple[int, int] = (0, 0)
    """As in ``Version.changed``."""


@dataclass(slots=True)
class Patch:
    """A change of a content: from ``start`` on, ``gap`` zeros and then ``data``."""

    start: int
    gap: int
    data: memoryview
    sums: Sequence[int]
    """Of the pieces of ``data`` (``fireflyfs.checksum``)."""

    @property
    def offset(self) -> int:
        return self.start + self.gap

    @property
    def end(self) -> int:
        return self.offset + len(self.data)

    def buffers(self) -> list[memoryview]:
        return [memoryview(bytes(self.gap)), self.data]

    def part(self, start: int, end: int) -> list[memoryview]:
        """Its bytes from ``start`` to ``end`` of the chunk, which lie within it."""
        zeros = max(0, min(end, self.offset) - start)
        return [
            memoryview(bytes(zeros)),
            self.data[max(0, start - self.offset) : max(0, end - self.offset)],
        ]


class Drafter:
    """Makes drafts. Used by the writer thread only.

    Every method raises ``OSError`` (ENOSPC: nothing has changed) and ``FsError(CHECKSUM)`` if old
    bytes that must be copied are rotten.
    """

    def __init__(self, files: BlockFiles, space: Space, next_redo: int) -> None:
        self._files = files
        self._space = space
        self._next_redo = next_redo
        self.redo_bytes = 0
        """Held by all redos of the store."""

    def replace(self, data: memoryview, sums: Sequence[int]) -> Draft:
        """A whole content."""
        return self._copied(b"", EMPTY, Patch(0, 0, data, sums))

    def write(
        self, chunk: bytes, base: Content, offset: int, data: memoryview, sums: Sequence[int]
    ) -> Draft:
        start = min(offset, base.length)
        patch = Patch(start, offset - start, data, sums)
        if patch.end == start:
            return Draft(base)
        block = base.block
        if block is not None and max(patch.end, base.length) <= block.size:
            if start == base.length and start >= block.high:
                return self._appended(chunk, base, block, patch)
            if self._may_redo(base, block, patch):
                return self._redone(chunk, base, block, patch)
        return self._copied(chunk, base, patch)

    def truncate(self, chunk: bytes, base: Content, length: int) -> Draft:
        if length >= base.length:
            return self.write(chunk, base, length, memoryview(b""), ())
        if length == 0:
            return Draft(EMPTY)
        assert base.block is not None
        whole = length // SUB_BLOCK
        sums = base.sums[: whole * 4]
        if length % SUB_BLOCK:
            kept = fetch(self._files, chunk, base, whole * SUB_BLOCK, length)
            sums += crc32c(kept).to_bytes(4, "little")
        if class_for(length) == base.block.size_class:
            content = Content(base.block, length, sums, base.redo_upto)
            return Draft(content, changed=(whole, len(sums) // 4))
        return self._stored([fetch(self._files, chunk, base, 0, length)], length, sums)

    def _appended(self, chunk: bytes, base: Content, block: Block, patch: Patch) -> Draft:
        sums, changed = self._sums(chunk, base, patch)
        self._space.require_room()
        self._files.write(block.location, patch.start, patch.buffers())
        block.high = patch.end
        return Draft(Content(block, patch.end, sums, base.redo_upto), changed=changed)

    def _may_redo(self, base: Content, block: Block, patch: Patch) -> bool:
        if patch.end - patch.start > MAX_REDO or self.redo_bytes > MAX_REDO_BYTES:
            return False
        if not block.redos:
            return True
        # a redo of a dropped version must not become part of this one
        own = block.redos[-1].sequence <= base.redo_upto
        return own and len(block.redos) < MAX_REDOS

    def _redone(self, chunk: bytes, base: Content, block: Block, patch: Patch) -> Draft:
        sums, changed = self._sums(chunk, base, patch)
        self._space.require_room()
        data = b"".join(patch.buffers())
        redo = Redo(self._next_redo, block.location, patch.start, data)
        self._next_redo += 1
        block.high = max(block.high, patch.end)
        content = Content(block, max(base.length, patch.end), sums, redo.sequence)
        return Draft(content, redo=redo, changed=changed)

    def _copied(self, chunk: bytes, base: Content, patch: Patch) -> Draft:
        length = max(base.length, patch.end)
        if length == 0:
            return Draft(EMPTY)
        sums, _ = self._sums(chunk, base, patch)
        head = fetch(self._files, chunk, base, 0, patch.start)
        tail = fetch(self._files, chunk, base, patch.end, base.length)
        return self._stored([head, *patch.buffers(), tail], length, sums)

    def _stored(self, buffers: list[memoryview], length: int, sums: bytes) -> Draft:
        block = self._space.take(length)
        try:
            self._files.write(block.location, 0, buffers)
        except OSError:
            self._space.give_back(block)
            raise
        block.high = length
        return Draft(Content(block, length, sums), taken=block)

    def _sums(self, chunk: bytes, base: Content, patch: Patch) -> tuple[bytes, tuple[int, int]]:
        """Sums of the patched content, and which of them are new."""
        length = max(base.length, patch.end)
        first, end = patch.start // SUB_BLOCK, (patch.end + SUB_BLOCK - 1) // SUB_BLOCK
        middle = bytearray()
        for index in range(first, end):
            stop = min((index + 1) * SUB_BLOCK, length)
            middle += self._sum(chunk, base, patch, index * SUB_BLOCK, stop).to_bytes(4, "little")
        return base.sums[: first * 4] + middle + base.sums[end * 4 :], (first, end)

    def _sum(self, chunk: bytes, base: Content, patch: Patch, start: int, stop: int) -> int:
        """Of the sub-block ``[start, stop)`` of the patched content."""
        if patch.offset <= start and patch.end >= stop:
            return patch.sums[start // SUB_BLOCK - patch.offset // SUB_BLOCK]
        if start < patch.start == base.length:  # an append continues the old sum
            (value,) = base.sum_list(start // SUB_BLOCK, start // SUB_BLOCK + 1)
            pieces = patch.part(patch.start, min(stop, patch.end))
        else:
            old = fetch(self._files, chunk, base, start, min(stop, base.length))
            changed = max(start, patch.start), min(stop, patch.end)
            head, tail = old[: changed[0] - start], old[changed[1] - start :]
            value, pieces = 0, [head, *patch.part(*changed), tail]
        for piece in pieces:
            value = crc32c(piece, value)
        return value
