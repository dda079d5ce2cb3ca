"""Reading a content: bytes from the block, redo writes laid over them, every sub-block verified."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fireflyfs.checksum import crc32c, first_mismatch
from fireflyfs.errors import Code, FsError
from fireflyfs.limits import SUB_BLOCK

if TYPE_CHECKING:
    from storage_service.store.blocks import BlockFiles
    from storage_service.store.record import Content, Redo


class Window:
    """A range of a content widened to whole sub-blocks, and the buffer that it is read into."""

    def __init__(self, content: Content, redos: tuple[Redo, ...], start: int, end: int) -> None:
        """``start < end <= content.length``; ``redos`` are the content's."""
        self._content = content
        self._redos = redos
        self._start, self._end = start, end
        self._first = start // SUB_BLOCK
        self._last = (end + SUB_BLOCK - 1) // SUB_BLOCK
        self._origin = self._first * SUB_BLOCK
        limit = min(self._last * SUB_BLOCK, content.length)
        self._buffer = memoryview(bytearray(limit - self._origin))

    def __len__(self) -> int:
        return len(self._buffer)

    def read(self, files: BlockFiles, chunk: bytes) -> None:
        """Raises ``FsError(CHECKSUM)`` naming chunk and offset, and ``OSError``."""
        assert self._content.block is not None
        files.pread(self._content.block.location, self._origin, self._buffer)
        self._verify(chunk)

    def read_nowait(self, files: BlockFiles, chunk: bytes) -> bool:
        """As ``read``, but False if it would wait for the device."""
        assert self._content.block is not None
        if not files.pread_nowait(self._content.block.location, self._origin, self._buffer):
            return False
        self._verify(chunk)
        return True

    def _verify(self, chunk: bytes) -> None:
        end = self._origin + len(self._buffer)
        for redo in self._redos:
            if redo.offset < end and redo.end > self._origin:
                start, stop = max(redo.offset, self._origin), min(redo.end, end)
                piece = redo.data[start - redo.offset : stop - redo.offset]
                self._buffer[start - self._origin : stop - self._origin] = piece
        expected = self._content.sum_list(self._first, self._last)
        bad = first_mismatch(self._origin, self._buffer, expected)
        if bad is not None:
            message = f"chunk {chunk.hex()} at offset {bad}: the bytes do not match their checksum"
            raise FsError(Code.CHECKSUM, message)

    def data(self) -> memoryview:
        """The range that was asked for."""
        return self._buffer[self._start - self._origin : self._end - self._origin]

    def sums(self) -> list[int]:
        """Of the pieces of ``data``: the stored ones of whole sub-blocks, new ones at the ends."""
        sums = self._content.sum_list(self._first, self._last)
        first_end = min(self._origin + SUB_BLOCK, self._end)
        if self._start > self._origin or first_end < self._piece_end(self._first):
            sums[0] = self._sum(self._start, first_end)
        if len(sums) > 1 and self._end < self._piece_end(self._last - 1):
            sums[-1] = self._sum((self._last - 1) * SUB_BLOCK, self._end)
        return sums

    def _piece_end(self, index: int) -> int:
        return min((index + 1) * SUB_BLOCK, self._content.length)

    def _sum(self, start: int, end: int) -> int:
        return crc32c(self._buffer[start - self._origin : end - self._origin])


def fetch(files: BlockFiles, chunk: bytes, content: Content, start: int, end: int) -> memoryview:
    """Verified bytes ``[start, end)`` of a content. Raises as ``Window.read``."""
    if start >= end:
        return memoryview(b"")
    window = Window(content, content.redos, start, end)
    window.read(files, chunk)
    return window.data()
