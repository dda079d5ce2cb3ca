"""The bytes of one file: ranges cut at chunk boundaries, chunks of one request in parallel."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from fireflyfs.client.together import together
from fireflyfs.ids import chunk_id
from fireflyfs.layout import extents
from fireflyfs.limits import MAX_LISTING_PAGE

if TYPE_CHECKING:
    from fireflyfs.client.storage import StorageClient
    from fireflyfs.ids import ChainId, InodeId
    from fireflyfs.layout import Extent, Layout


class FileIO:
    """Bytes in, bytes out. It knows no length: that belongs to the metadata.

    A chunk may be shorter than its place in the file or missing: what it lacks reads as zeros. So a
    hole costs nothing, and a file grown by its length alone is right at once.
    """

    def __init__(
        self, storage: StorageClient, inode: InodeId, layout: Layout, found: int = 0
    ) -> None:
        """``found``: bytes that the file has already. Nobody knows whether those who wrote them
        flushed them, and fsync(2) answers for all of the file: so the first flush covers them."""
        self._storage = storage
        self._inode = inode
        self._layout = layout
        chunks = min(-(-found // layout.chunk_size), len(layout.chains))
        self._unflushed: set[ChainId] = set(layout.chains[:chunks])
        self._flushing = trio.Lock()

    async def pread(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with the file's bytes from ``offset`` on. The caller keeps within the
        file's length. Raises FsError as ``StorageClient.read_into``."""
        parts = list(extents(self._layout, self._inode, offset, len(buffer)))
        await together([partial(self._read_part, part, buffer) for part in parts])

    async def _read_part(self, part: Extent, buffer: memoryview) -> None:
        piece = buffer[part.position : part.position + part.length]
        await self._storage.read_into(part.chain, part.chunk, part.offset, piece)

    async def pwrite(self, offset: int, data: memoryview) -> None:
        """Every serving replica has ``data`` when this returns.

        Raises:
            FsError: as ``StorageClient.write``; parts of ``data`` may then be written.
        """
        parts = list(extents(self._layout, self._inode, offset, len(data)))
        await together([partial(self._write_part, part, data) for part in parts])

    async def _write_part(self, part: Extent, data: memoryview) -> None:
        piece = data[part.position : part.position + part.length]
        try:
            await self._storage.write(part.chain, part.chunk, part.offset, piece)
        finally:
            # Only now: a flush that began before could not have covered it.
            self._unflushed.add(part.chain)

    async def truncate(self, known_length: int, length: int) -> None:
        """Cut away what lies beyond ``length``; ``known_length`` is the file's length before.

        The metadata server learns the new length after this, not before. In the other order a
        crash in between would leave old bytes beyond the new end, and a file that grows over them
        later would show them again. In this order it leaves zeros where the caller asked for
        nothing at all, with the old length: the truncation is merely unfinished.

        The chain is asked which chunks there are, for a truncate of a missing chunk would make one
        and of a short one would grow it. Raises FsError as ``StorageClient.write``.
        """
        first = length // self._layout.chunk_size
        last = max(first, -(-known_length // self._layout.chunk_size))
        indexes = range(first, min(last, first + len(self._layout.chains)))
        chains = dict.fromkeys(self._layout.chain_of(index) for index in indexes)
        await together([partial(self._cut_chain, chain, length) for chain in chains])

    async def _cut_chain(self, chain: ChainId, length: int) -> None:
        boundary, within = divmod(length, self._layout.chunk_size)
        first = boundary
        while True:
            page, end = await self._storage.query(chain, self._inode, first, MAX_LISTING_PAGE)
            cuts = []
            for index, chunk_length in page:
                if index > boundary or not within:
                    cuts.append(partial(self._remove, chain, index))
                elif chunk_length > within:
                    cuts.append(partial(self._shorten, chain, index, within))
            await together(cuts)
            if end or not page:
                return
            first = page[-1][0] + 1

    async def _remove(self, chain: ChainId, index: int) -> None:
        try:
            await self._storage.remove(chain, chunk_id(self._inode, index))
        finally:
            self._unflushed.add(chain)

    async def _shorten(self, chain: ChainId, index: int, length: int) -> None:
        try:
            await self._storage.truncate(chain, chunk_id(self._inode, index), length)
        finally:
            self._unflushed.add(chain)

    async def flush(self) -> None:
        """What was written and acknowledged here before, or found at the beginning, is on every
        serving replica's medium when this returns. Raises FsError; what was not flushed stays due.

        Flushes take turns, so that one which finds nothing to do also knows that it is done.
        """
        async with self._flushing:
            chains, self._unflushed = self._unflushed, set()
            try:
                await self._storage.flush(chains)
            except BaseException:
                self._unflushed |= chains
                raise
